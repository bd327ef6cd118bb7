"""A connection that asks for a WebSocket goes to uvicorn's protocol for those, with the head that has been read of it."""

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


def hand_over(
    config: Any, server_state: Any, app_state: Any, transport: Any, method: bytes, url: bytes, headers: Headers
) -> None:
    """From now on the connection is another protocol's."""
    lines = [method, b" ", url, b" HTTP/1.1\r\n"]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    protocol = config.ws_protocol_class(config=config, server_state=server_state, app_state=app_state)
    protocol.connection_made(transport)
    protocol.data_received(b"".join(lines))
    transport.set_protocol(protocol)
