"""Which headers pass, in either direction (wire.md section 6). Towards the provider by allow-list; back by deny-list."""

import re
import time
from collections.abc import Iterable, Sequence

from gateway.dialects.shape import Dialect
from gateway.refusals import Code, Refusal

Headers = Sequence[tuple[bytes, bytes]]

_TO_UPSTREAM = frozenset(
    (b"content-type", b"accept", b"user-agent", b"openai-beta", b"anthropic-version", b"anthropic-beta",
     b"x-goog-api-client", b"x-server-timeout"),
)  # fmt: skip
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
     b"transfer-encoding", b"upgrade"),
)  # fmt: skip
# They describe the operator's account with the provider, or belong to a connection that is not the caller's.
_NOT_TO_CALLER = _HOP_BY_HOP | frozenset(
    (b"set-cookie", b"server", b"date", b"alt-svc", b"strict-transport-security", b"location", b"openai-organization",
     b"openai-project", b"anthropic-organization-id", b"anthropic-workspace-id", b"via"),
)  # fmt: skip
_NOT_TO_CALLER_PREFIXES = (b"cf-", b"x-ratelimit-", b"anthropic-ratelimit-", b"x-weir-")
_MINUTE_US = 60_000_000
_JSON = re.compile(rb"application/json\s*(?:;\s*charset=utf-8\s*)?$", re.IGNORECASE)


def check(headers: Headers) -> None:
    """Refuse what could be read in two ways: no Host or two, and a body in a coding that is not metered."""
    if sum(name == b"host" for name, _ in headers) != 1:
        raise Refusal(Code.INVALID_REQUEST, "A request needs exactly one Host header.")
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise Refusal(Code.UNSUPPORTED_ENCODING, "Send the body without content-encoding.")


def to_upstream(headers: Headers, credential: Headers, *, form: bool = False) -> list[tuple[bytes, bytes]]:
    """What the provider sees: allowed headers as they came, the operator's credential, and a plain answer asked for.

    A body that was read as JSON is sent as JSON: under another type the provider could read another model in it.
    """
    named = _named_by_connection(headers)
    passed = [
        (name, value)
        for name, value in headers
        if (name in _TO_UPSTREAM or name.startswith(b"x-stainless-")) and name not in named
    ]
    if not form and not any(name == b"content-type" and _JSON.match(value) for name, value in passed):
        passed = [(name, value) for name, value in passed if name != b"content-type"]
        passed.append((b"content-type", b"application/json"))
    return [*passed, *credential, (b"accept-encoding", b"identity")]


def to_caller(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What the caller sees of the provider's headers (which come with their names in lower case)."""
    headers = tuple(headers)
    named = _named_by_connection(headers)
    return [
        (name, value)
        for name, value in headers
        if name not in _NOT_TO_CALLER and name not in named and not name.startswith(_NOT_TO_CALLER_PREFIXES)
    ]


def rate_limits(dialect: Dialect, kind: str, limit: int | None, used_us: int) -> list[tuple[bytes, bytes]]:
    """The caller's own limit in the dialect's headers; `used_us` is what of the minute is used up (GCRA)."""
    if limit is None:
        return []
    left = max((_MINUTE_US - used_us) * limit // _MINUTE_US, 0)
    return dialect.limits(kind, limit, left, -(-used_us // 1000), time.time())


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    return frozenset(
        token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")
    )
