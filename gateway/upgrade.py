"""Requests that ask for another protocol. A WebSocket goes to uvicorn's protocol for those, with the head that was read."""

from collections.abc import Sequence
from typing import Any

Headers = Sequence[tuple[bytes, bytes]]


def asked_for(headers: Headers) -> bytes | None:
    """The protocol that a request wants to go on with, if its `Connection` says that it does."""
    tokens: list[bytes] = []
    protocol = None
    for name, value in headers:
        if name == b"connection":
            tokens = [token.lower().strip() for token in value.split(b",")]
        elif name == b"upgrade":
            protocol = value.lower()
    return protocol if b"upgrade" in tokens else None


def head(method: bytes, url: bytes, version: str, headers: Headers, *, but: bytes = b"") -> bytes:
    """A request's head as it came, without the headers of one name."""
    lines = [method, b" ", url, b" HTTP/", version.encode(), b"\r\n"]
    for name, value in headers:
        if name != but:
            lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def hand_over(config: Any, server_state: Any, app_state: Any, transport: Any, data: bytes) -> bool:
    """From now on the connection is another protocol's; `data` is the head of the handshake and what came behind it.

    False if that is no handshake to it (one with a body, or of HTTP/1.0): it says nothing then, and closes nothing.
    """
    protocol = config.ws_protocol_class(config=config, server_state=server_state, app_state=app_state)
    protocol.connection_made(transport)
    protocol.data_received(data)
    if not protocol.handshake_initiated:
        server_state.connections.discard(protocol)
        return False
    transport.set_protocol(protocol)
    return True
