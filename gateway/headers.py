"""Which headers pass, in either direction (wire.md section 6). Towards the provider by allow-list; back by deny-list."""

import re
import time
from collections.abc import Sequence
from typing import Final

from gateway.dialects.secrets import Said, said
from gateway.dialects.shape import Dialect
from gateway.refusals import Code, Refusal

Headers = Sequence[tuple[bytes, bytes]]

_TO_UPSTREAM: Final = frozenset(
    (b"accept", b"user-agent", b"openai-beta", b"anthropic-version", b"anthropic-beta",
     b"x-goog-api-client", b"x-server-timeout"),
)  # fmt: skip
_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
     b"transfer-encoding", b"upgrade"),
)  # fmt: skip
# They describe the operator's account with the provider, or belong to a connection that is not the caller's.
_NOT_TO_CALLER: Final = _HOP_BY_HOP | frozenset(
    (b"set-cookie", b"server", b"date", b"alt-svc", b"strict-transport-security", b"location", b"openai-organization",
     b"openai-project", b"anthropic-organization-id", b"anthropic-workspace-id", b"via"),
)  # fmt: skip
_NOT_TO_CALLER_PREFIXES: Final[tuple[bytes, ...]] = (b"cf-", b"x-ratelimit-", b"anthropic-ratelimit-", b"x-weir-")
_MINUTE_US: Final = 60_000_000
_JSON: Final = b"application/json"
_JSON_TYPE: Final = re.compile(rb"application/json\s*(?:;\s*charset=utf-8\s*)?$", re.IGNORECASE)
_NO_CODING: Final = (b"", b"identity")
_PLAIN: Final = (b"accept-encoding", b"identity")
_USUAL: Final = (b"keep-alive", b"Keep-Alive", b"close")
_NONE: Final[frozenset[bytes]] = frozenset()


def check(headers: Headers) -> Said:
    """What the headers say. Refused is what could be read in two ways: no Host or two, and a body in a coding that is not
    metered.
    """
    found = said(headers)
    if b"host" not in found:
        raise Refusal(Code.INVALID_REQUEST, "A request needs exactly one Host header.")
    if b"content-encoding" in found or len(found) != len(headers):
        for name, value in headers:
            if name == b"content-encoding" and value.strip().lower() not in _NO_CODING:
                raise Refusal(Code.UNSUPPORTED_ENCODING, "Send the body without content-encoding.")
    return found


def to_upstream(headers: Headers, credential: Headers, *, form: bool = False) -> list[tuple[bytes, bytes]]:
    """What the provider sees: allowed headers as they came, the operator's credential, and a plain answer asked for.

    A body that was read as JSON is sent as JSON: under another type the provider could read another model in it.
    """
    passed: list[tuple[bytes, bytes]] = []
    named = _NONE
    typed = form
    for field in headers:
        name = field[0]
        if name == b"content-type":
            if form or field[1] == _JSON or _JSON_TYPE.match(field[1]):
                passed.append(field)
                typed = True
        elif name in _TO_UPSTREAM or name.startswith(b"x-stainless-"):
            passed.append(field)
        elif name == b"connection" and field[1] not in _USUAL:
            named |= _tokens(field[1])
    if named:
        passed = [field for field in passed if field[0] not in named]
    if not typed:
        passed.append((b"content-type", _JSON))
    passed += credential
    passed.append(_PLAIN)
    return passed


def to_caller(headers: Headers) -> list[tuple[bytes, bytes]]:
    """What the caller sees of the provider's headers (which come with their names in lower case)."""
    passed: list[tuple[bytes, bytes]] = []
    named = _NONE
    for field in headers:
        name = field[0]
        if name in _NOT_TO_CALLER:
            if name == b"connection" and field[1] not in _USUAL:
                named |= _tokens(field[1])
        elif not _is_kept_back(name):
            passed.append(field)
    return [field for field in passed if field[0] not in named] if named else passed


def _is_kept_back(name: bytes) -> bool:
    for prefix in _NOT_TO_CALLER_PREFIXES:  # noqa: SIM110 - a generator costs more than all of it, and a tuple a method
        if name.startswith(prefix):
            return True
    return False


def rate_limits(dialect: Dialect, kind: str, limit: int | None, used_us: int) -> list[tuple[bytes, bytes]]:
    """The caller's own limit in the dialect's headers; `used_us` is what of the minute is used up (GCRA)."""
    if limit is None:
        return []
    left = max((_MINUTE_US - used_us) * limit // _MINUTE_US, 0)
    return dialect.limits(kind, limit, left, -(-used_us // 1000), time.time())


def _tokens(value: bytes) -> frozenset[bytes]:
    """The headers that a `connection` field keeps to the connection beside the usual ones."""
    return frozenset([token.strip().lower() for token in value.split(b",")])
