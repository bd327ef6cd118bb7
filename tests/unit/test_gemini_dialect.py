"""How Gemini's SDKs say who asks, and how they are told no."""

import json

import pytest

from gateway.dialects.gemini.dialect import Gemini
from gateway.dialects.secrets import said
from gateway.refusals import Code, Refusal

GEMINI = Gemini()
STATUSES = {
    "invalid_api_key": "UNAUTHENTICATED",
    "account_suspended": "PERMISSION_DENIED",
    "network_not_allowed": "PERMISSION_DENIED",
    "endpoint_not_allowed": "PERMISSION_DENIED",
    "unknown_path": "NOT_FOUND",
    "method_not_allowed": "INVALID_ARGUMENT",
    "model_not_found": "NOT_FOUND",
    "insufficient_balance": "FAILED_PRECONDITION",
    "spend_cap_reached": "FAILED_PRECONDITION",
    "rate_limit_exceeded": "RESOURCE_EXHAUSTED",
    "concurrency_limit_exceeded": "RESOURCE_EXHAUSTED",
    "invalid_request": "INVALID_ARGUMENT",
    "request_timeout": "DEADLINE_EXCEEDED",
    "request_too_large": "INVALID_ARGUMENT",
    "unsupported_encoding": "INVALID_ARGUMENT",
    "temporarily_unavailable": "UNAVAILABLE",
    "upstream_error": "UNAVAILABLE",
}


@pytest.mark.wire("3a.1")
@pytest.mark.parametrize(
    ("headers", "query", "secret"),
    [
        ([(b"x-goog-api-key", b"weir_a")], b"", b"weir_a"),
        ([(b"x-goog-api-key", b"weir_a")], b"key=weir_b", b"weir_a"),
        ([], b"key=weir_b", b"weir_b"),
        ([], b"alt=sse&key=weir%5Fb", b"weir_b"),
        ([], b"monkey=1&alt=sse", b""),
        ([], b"key=weir_b&key=weir_c", b""),
        ([(b"authorization", b"Bearer weir_c")], b"alt=sse", b"weir_c"),
        ([(b"authorization", b"Bearer weir_c")], b"key=weir_b", b"weir_b"),
        ([(b"x-goog-api-key", b"weir_a"), (b"x-goog-api-key", b"weir_b")], b"", b""),
        ([(b"x-api-key", b"weir_a")], b"", b""),
    ],
)
def test_the_callers_key(headers: list[tuple[bytes, bytes]], query: bytes, secret: bytes) -> None:
    assert GEMINI.secret(said(headers), query) == secret


@pytest.mark.wire("3a.1")
def test_the_operators_credential_is_a_header() -> None:
    assert GEMINI.credential("AIza") == [(b"x-goog-api-key", b"AIza")]


@pytest.mark.wire("3d.1")
@pytest.mark.parametrize("code", Code)
def test_a_refusal(code: Code) -> None:
    body = json.loads(GEMINI.error_body(Refusal(code, "Do this.", param="p"), "req-1"))
    reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code.word, "domain": "weir"}
    assert body == {
        "error": {"code": code.status, "message": "Do this.", "status": STATUSES[code.word], "details": [reason]}
    }


@pytest.mark.wire("3d.1")
def test_when_to_come_again() -> None:
    """In the body: these SDKs do not read the header."""
    body = json.loads(GEMINI.error_body(Refusal(Code.RATE_LIMIT_EXCEEDED, "Wait.", retry_after_s=7.0004), "req-1"))
    assert body["error"]["details"][1] == {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": "7.000s",
    }


@pytest.mark.wire("3d.2", "3d.3")
def test_an_error_in_a_stream_is_one_that_python_raises() -> None:
    """It looks at how the chunk begins, and needs a number for the code."""
    frame = GEMINI.error_frame('It "broke"\n off.', "req-1")
    assert frame.startswith(b'data: {"error":{"code":503,')
    assert frame.endswith(b"}\n\n")
    assert frame.count(b"\n") == 2
    error = {"code": 503, "message": 'It "broke"\n off.', "status": "UNAVAILABLE"}
    assert json.loads(frame.removeprefix(b"data: ")) == {"error": error}


def test_there_are_no_headers_for_limits() -> None:
    assert GEMINI.limits("requests", 60, 12, 1_500, 0.0) == []
