"""Where SDKs put an API key. A header given twice is no key: two readers could take different ones."""

from collections import Counter
from collections.abc import Mapping, Sequence

_IN_SUBPROTOCOL = b"openai-insecure-api-key."

Said = Mapping[bytes, bytes]
"""What headers say, by their names in lower case; one that was given twice says nothing."""


def said(headers: Sequence[tuple[bytes, bytes]]) -> Said:
    """A request's headers as a mapping, made in one pass."""
    found = dict(headers)
    if len(found) != len(headers):
        given = Counter(name for name, _ in headers)
        return {name: value for name, value in found.items() if given[name] == 1}
    return found


def header(headers: Said, name: bytes) -> bytes:
    """The one value of a header; empty if there is none, or more than one."""
    return headers.get(name, b"").strip()


def bearer(headers: Said) -> bytes:
    """The token of `Authorization: Bearer`; empty if there is none."""
    value = header(headers, b"authorization")
    return value[7:].strip() if value[:7].lower() == b"bearer " else b""


def subprotocol(headers: Said) -> bytes:
    """The key that a browser's SDK puts among a WebSocket's subprotocols, for want of a header; empty if there is none."""
    offered = header(headers, b"sec-websocket-protocol").split(b",")
    found = [word.strip()[len(_IN_SUBPROTOCOL) :] for word in offered if word.strip().startswith(_IN_SUBPROTOCOL)]
    return found[0] if len(found) == 1 else b""
