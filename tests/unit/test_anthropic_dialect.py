"""How Anthropic's SDKs say who asks, and how they are told no."""

import json

import pytest

from gateway.dialects.anthropic.dialect import Anthropic
from gateway.dialects.secrets import said
from gateway.refusals import Code, Refusal

ANTHROPIC = Anthropic()
TYPES = {
    "invalid_api_key": "authentication_error",
    "account_suspended": "permission_error",
    "network_not_allowed": "permission_error",
    "endpoint_not_allowed": "permission_error",
    "unknown_path": "not_found_error",
    "method_not_allowed": "invalid_request_error",
    "model_not_found": "not_found_error",
    "insufficient_balance": "billing_error",
    "spend_cap_reached": "billing_error",
    "rate_limit_exceeded": "rate_limit_error",
    "concurrency_limit_exceeded": "rate_limit_error",
    "invalid_request": "invalid_request_error",
    "request_timeout": "timeout_error",
    "request_too_large": "request_too_large",
    "unsupported_encoding": "invalid_request_error",
    "temporarily_unavailable": "overloaded_error",
    "upstream_error": "api_error",
}


@pytest.mark.wire("2a.1")
@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ([(b"authorization", b"Bearer weir_new")], b"weir_new"),
        ([(b"x-api-key", b"weir_old")], b"weir_old"),
        ([(b"authorization", b"Bearer weir_new"), (b"x-api-key", b"weir_old")], b"weir_old"),
        ([(b"authorization", b"Bearer weir_new"), (b"x-api-key", b"sk-ant-api-forgotten")], b"weir_new"),
        ([(b"authorization", b"Bearer sk-ant-oat-forgotten"), (b"x-api-key", b"weir_old")], b"weir_old"),
        ([(b"authorization", b"Bearer other"), (b"x-api-key", b"one")], b"one"),
        ([(b"x-api-key", b"weir_a"), (b"x-api-key", b"weir_b")], b""),
        ([(b"authorization", b"Basic weir_new")], b""),
        ([], b""),
    ],
)
def test_the_callers_key(headers: list[tuple[bytes, bytes]], secret: bytes) -> None:
    assert ANTHROPIC.secret(said(headers), b"key=weir_query") == secret


@pytest.mark.wire("2a.1")
def test_the_operators_credential() -> None:
    assert ANTHROPIC.credential("sk-ant-api03-x") == [(b"x-api-key", b"sk-ant-api03-x")]
    assert ANTHROPIC.credential("anything") == [(b"x-api-key", b"anything")]
    assert ANTHROPIC.credential("sk-ant-oat01-x") == [(b"authorization", b"Bearer sk-ant-oat01-x")]


@pytest.mark.wire("2d.1")
@pytest.mark.parametrize("code", Code)
def test_a_refusal(code: Code) -> None:
    body = json.loads(ANTHROPIC.error_body(Refusal(code, "Do this.", param="p"), "req-1"))
    assert body == {
        "type": "error",
        "error": {"type": TYPES[code.word], "message": "Do this.", "details": {"error_code": code.word}},
        "request_id": "req-1",
    }


@pytest.mark.wire("2d.2")
def test_an_error_in_a_stream_has_its_event_line() -> None:
    first, second, *rest = ANTHROPIC.error_frame('It "broke"\n off.', "req-1").split(b"\n")
    assert first == b"event: error"
    assert json.loads(second.removeprefix(b"data: ")) == {
        "type": "error",
        "error": {"type": "api_error", "message": 'It "broke"\n off.'},
        "request_id": "req-1",
    }
    assert rest == [b"", b""]


@pytest.mark.wire("2d.3")
def test_the_callers_own_limits() -> None:
    assert ANTHROPIC.limits("requests", 60, 12, 1_500, 1_700_000_000.0) == [
        (b"anthropic-ratelimit-requests-limit", b"60"),
        (b"anthropic-ratelimit-requests-remaining", b"12"),
        (b"anthropic-ratelimit-requests-reset", b"2023-11-14T22:13:22Z"),
    ]
    names = [name for name, _ in ANTHROPIC.limits("tokens", 9, 0, 0, 0.0)]
    assert names == [b"anthropic-ratelimit-tokens-" + word for word in (b"limit", b"remaining", b"reset")]
