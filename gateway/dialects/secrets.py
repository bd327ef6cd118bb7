"""Where SDKs put an API key. A header given twice is no key: two readers could take different ones."""

from collections.abc import Sequence

_IN_SUBPROTOCOL = b"openai-insecure-api-key."


def header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The one value of a header; empty if there is none, or more than one."""
    found = None
    for field in headers:
        if field[0] == name:
            if found is not None:
                return b""
            found = field[1]
    return b"" if found is None else found.strip()


def bearer(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The token of `Authorization: Bearer`; empty if there is none."""
    value = header(headers, b"authorization")
    return value[7:].strip() if value[:7].lower() == b"bearer " else b""


def subprotocol(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The key that a browser's SDK puts among a WebSocket's subprotocols, for want of a header; empty if there is none."""
    offered = header(headers, b"sec-websocket-protocol").split(b",")
    found = [word.strip()[len(_IN_SUBPROTOCOL) :] for word in offered if word.strip().startswith(_IN_SUBPROTOCOL)]
    return found[0] if len(found) == 1 else b""
