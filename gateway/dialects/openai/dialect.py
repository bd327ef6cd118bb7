"""How OpenAI's SDKs say who asks, and how they are told no (wire.md 1a and 1d)."""

from typing import ClassVar

import orjson

from gateway.dialects import secrets
from gateway.dialects.shape import Headers
from gateway.refusals import Refusal

_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}
_LIMITS = {
    kind: [f"x-ratelimit-{what}-{kind}".encode() for what in ("limit", "remaining", "reset")]
    for kind in ("requests", "tokens")
}


class OpenAI:
    """The dialect under /openai/v1 and at the bare root."""

    name = "openai"
    providers: ClassVar[frozenset[str]] = frozenset(("openai", "xai", "openai_compatible"))
    request_id_header = b"x-request-id"

    def secret(self, headers: secrets.Said, query: bytes) -> bytes:
        del query
        return secrets.bearer(headers) or secrets.subprotocol(headers)

    def credential(self, credential: str) -> Headers:
        return [(b"authorization", b"Bearer " + credential.encode())]

    def error_body(self, refusal: Refusal, rid: str) -> bytes:
        del rid
        status = refusal.code.status
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        error = {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code.word}
        return orjson.dumps({"error": error})

    def error_frame(self, message: str, rid: str) -> bytes:
        del rid
        error = {"message": message, "type": "server_error", "param": None, "code": "upstream_error"}
        return b"data: " + orjson.dumps({"error": error}) + b"\n\n"

    def limits(self, kind: str, limit: int, left: int, reset_ms: int, now_s: float) -> Headers:
        del now_s  # the reset is a duration such as 120ms or 6m0s
        of_limit, of_left, of_reset = _LIMITS[kind]
        return [(of_limit, b"%d" % limit), (of_left, b"%d" % left), (of_reset, b"%dms" % reset_ms)]


class Xai(OpenAI):
    """xAI is spoken to with OpenAI's SDK; under /xai/v1 only its own upstreams serve (wire.md 4)."""

    name = "xai"
    providers: ClassVar[frozenset[str]] = frozenset(("xai",))
