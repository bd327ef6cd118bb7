"""How Anthropic's SDKs say who asks, and how they are told no (wire.md 2a and 2d)."""

import math
from datetime import UTC, datetime
from typing import Any, ClassVar

import orjson

from gateway.dialects import secrets
from gateway.dialects.shape import Headers
from gateway.refusals import Refusal

_TYPES = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    408: "timeout_error", 413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip
_KEY_PREFIX = b"weir_"
_OAUTH_PREFIX = "sk-ant-oat"


class Anthropic:
    """The dialect under /anthropic, and of /v1/messages at the bare root."""

    name = "anthropic"
    providers: ClassVar[frozenset[str]] = frozenset(("anthropic",))
    request_id_header = b"request-id"

    def secret(self, headers: secrets.Said, query: bytes) -> bytes:
        """SDKs since October 2026 send a bearer token, older ones `x-api-key`; some callers send both (wire.md 2a.1)."""
        del query
        old, new = secrets.header(headers, b"x-api-key"), secrets.bearer(headers)
        ours = (found for found in (old, new) if found.startswith(_KEY_PREFIX))
        return next(ours, old or new)

    def credential(self, credential: str) -> Headers:
        if credential.startswith(_OAUTH_PREFIX):
            return [(b"authorization", b"Bearer " + credential.encode())]
        return [(b"x-api-key", credential.encode())]

    def error_body(self, refusal: Refusal, rid: str) -> bytes:
        """The SDKs show `type`, and `details.error_code` as `error_code`; the exception's class is by the status."""
        status = refusal.code.status
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
        error = {"type": kind, "message": refusal.message, "details": {"error_code": refusal.code.word}}
        return _enveloped(error, rid)

    def error_frame(self, message: str, rid: str) -> bytes:
        """Without its `event:` line the SDKs would drop it silently (wire.md 2d)."""
        return b"event: error\ndata: " + _enveloped({"type": "api_error", "message": message}, rid) + b"\n\n"

    def limits(self, kind: str, limit: int, left: int, reset_ms: int, now_s: float) -> Headers:
        # Whole seconds, rounded up: who waits until then finds the limit free again.
        reset = datetime.fromtimestamp(math.ceil(now_s + reset_ms / 1000), UTC)
        return [
            (f"anthropic-ratelimit-{kind}-limit".encode(), str(limit).encode()),
            (f"anthropic-ratelimit-{kind}-remaining".encode(), str(left).encode()),
            (f"anthropic-ratelimit-{kind}-reset".encode(), reset.strftime("%Y-%m-%dT%H:%M:%SZ").encode()),
        ]


def _enveloped(error: dict[str, Any], rid: str) -> bytes:
    return orjson.dumps({"type": "error", "error": error, "request_id": rid})
