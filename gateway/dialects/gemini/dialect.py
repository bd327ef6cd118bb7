"""How Gemini's SDKs say who asks, and how they are told no (wire.md 3a and 3d)."""

from typing import ClassVar
from urllib.parse import unquote_to_bytes

import orjson

from gateway.dialects import secrets
from gateway.dialects.shape import Headers
from gateway.refusals import Refusal

# 402 is no gRPC status: this is the one that says that waiting does not help until somebody mends the account.
_STATUSES = {
    401: "UNAUTHENTICATED", 402: "FAILED_PRECONDITION", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED", 429: "RESOURCE_EXHAUSTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE",
}  # fmt: skip
_TYPE = "type.googleapis.com/google.rpc."


class Gemini:
    """The dialect under /gemini, and of paths that end in a method at the bare root."""

    name = "gemini"
    providers: ClassVar[frozenset[str]] = frozenset(("gemini",))
    request_id_header = b"x-request-id"

    def secret(self, headers: secrets.Said, query: bytes) -> bytes:
        """SDKs send `x-goog-api-key`, raw callers `?key=` or a bearer token (wire.md 3a)."""
        return secrets.header(headers, b"x-goog-api-key") or _key(query) or secrets.bearer(headers)

    def credential(self, credential: str) -> Headers:
        return [(b"x-goog-api-key", credential.encode())]

    def error_body(self, refusal: Refusal, rid: str) -> bytes:
        del rid
        status = refusal.code.status
        details = [{"@type": _TYPE + "ErrorInfo", "reason": refusal.code.word, "domain": "weir"}]
        if refusal.retry_after_s is not None:  # these SDKs do not read the header
            details.append({"@type": _TYPE + "RetryInfo", "retryDelay": f"{max(refusal.retry_after_s, 0):.3f}s"})
        kind = _STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
        error = {"code": status, "message": refusal.message, "status": kind, "details": details}
        return orjson.dumps({"error": error})

    def error_frame(self, message: str, rid: str) -> bytes:
        """Python takes it for an error only if `error` is the first name and `code` a number (wire.md 3d)."""
        del rid
        error = {"code": 503, "message": message, "status": "UNAVAILABLE"}
        return b"data: " + orjson.dumps({"error": error}) + b"\n\n"

    def limits(self, kind: str, limit: int, left: int, reset_ms: int, now_s: float) -> Headers:
        del kind, limit, left, reset_ms, now_s
        return []  # no SDK of this dialect reads any (wire.md 3d)


def _key(query: bytes) -> bytes:
    """The query's `key`; given twice it is none, as with headers."""
    found = [each[4:] for each in query.split(b"&") if each.startswith(b"key=")]
    return unquote_to_bytes(found[0]) if len(found) == 1 else b""
