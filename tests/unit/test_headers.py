"""Which headers pass, and in which direction."""

import pytest

from gateway.headers import check, to_caller, to_upstream
from gateway.refusals import Code, Refusal

CREDENTIAL = [(b"authorization", b"Bearer sk-up")]


@pytest.mark.wire("6.12")
def test_what_sdks_read_passes_back() -> None:
    read = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"x-request-id", b"req_1"),
        (b"request-id", b"req_2"),
        (b"retry-after", b"7"),
        (b"retry-after-ms", b"7000"),
        (b"x-should-retry", b"false"),
        (b"x-gemini-service-tier", b"flex"),
        (b"openai-processing-ms", b"12"),
        (b"openai-version", b"2020-10-01"),
        (b"content-length", b"12"),
    ]
    assert to_caller(read) == read


@pytest.mark.wire("6.1", "6.3")
def test_what_belongs_to_the_operator_or_to_the_connection_does_not() -> None:
    said = [
        (b"connection", b"Keep-Alive, X-Hop"), (b"x-hop", b"1"), (b"keep-alive", b"timeout=5"), (b"trailer", b"x"),
        (b"transfer-encoding", b"chunked"), (b"upgrade", b"h2c"), (b"set-cookie", b"__cf_bm=1"), (b"cf-ray", b"1"),
        (b"openai-organization", b"org"), (b"openai-project", b"proj"), (b"anthropic-organization-id", b"org"),
        (b"anthropic-workspace-id", b"w"), (b"x-ratelimit-limit-tokens", b"9"), (b"anthropic-ratelimit-tokens-limit", b"9"),
        (b"server", b"cloudflare"), (b"alt-svc", b"h3"), (b"strict-transport-security", b"x"), (b"location", b"x"),
        (b"x-weir-refusal", b"forged"),
    ]  # fmt: skip
    assert to_caller(said) == []


@pytest.mark.wire("6.2", "2a.2", "5.6")
def test_what_sdks_say_of_themselves_goes_on_as_it_came() -> None:
    said = [
        (b"user-agent", b"OpenAI/Python 3.52.0"),
        (b"x-stainless-retry-count", b"1"),
        (b"x-stainless-lang", b"python"),
        (b"anthropic-version", b"2026-10-21"),
        (b"anthropic-beta", b"a,b"),
        (b"openai-beta", b"realtime=v1"),
        (b"x-goog-api-client", b"google-genai-sdk/3.4.0"),
        (b"x-server-timeout", b"60"),
        (b"accept", b"application/json"),
        (b"content-type", b"application/json"),
    ]
    assert to_upstream(said, CREDENTIAL) == [*said, *CREDENTIAL, (b"accept-encoding", b"identity")]
    theirs = [
        (b"authorization", b"Bearer weir_x"), (b"x-api-key", b"weir_x"), (b"x-goog-api-key", b"weir_x"), (b"cookie", b"c=1"),
        (b"openai-organization", b"org"), (b"openai-project", b"proj"), (b"x-forwarded-for", b"9.9.9.9"), (b"via", b"1.1 x"),
        (b"forwarded", b"for=9.9.9.9"), (b"x-real-ip", b"9.9.9.9"), (b"accept-encoding", b"gzip"),
        (b"expect", b"100-continue"), (b"host", b"weir"), (b"content-length", b"9"), (b"idempotency-key", b"k"),
    ]  # fmt: skip
    sent = to_upstream([*theirs, (b"content-type", b"application/json")], CREDENTIAL)
    assert sent == [(b"content-type", b"application/json"), *CREDENTIAL, (b"accept-encoding", b"identity")]


HOST = (b"host", b"weir")


@pytest.mark.parametrize("coding", [b"identity", b"", b" Identity "])
def test_a_plain_body_passes(coding: bytes) -> None:
    assert check([HOST, (b"content-encoding", coding)])[b"host"] == b"weir"


@pytest.mark.parametrize("codings", [[b"gzip"], [b"gzip", b"gzip"], [b"identity", b"br"], [b"deflate", b"identity"]])
def test_a_body_in_a_coding_is_refused_however_often_it_is_said(codings: list[bytes]) -> None:
    with pytest.raises(Refusal) as refused:
        check([HOST, *((b"content-encoding", coding) for coding in codings)])
    assert refused.value.code is Code.UNSUPPORTED_ENCODING


@pytest.mark.parametrize("hosts", [0, 2])
def test_a_request_has_one_host(hosts: int) -> None:
    with pytest.raises(Refusal) as refused:
        check([HOST] * hosts)
    assert refused.value.code is Code.INVALID_REQUEST
