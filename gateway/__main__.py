"""`python -m gateway`: one worker on an inherited socket (`weir gateway` and `weir up` start as many as are asked for)."""

import os
import socket
from types import FrameType

import uvicorn

from gateway.app import Gateway
from gateway.listener import Listener
from gateway.upstream.socket import MAX_FRAME
from ledger import log, process

# SDKs keep idle connections for 4 - 5 s; a server that closes earlier races with their next request (wire.md 5).
KEEP_ALIVE_S = 75


class Server(uvicorn.Server):
    """uvicorn, but `readyz` says no from the first signal on, so that balancers look elsewhere."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._gateway.own.draining = True
        super().handle_exit(sig, frame)


def main() -> None:
    settings = process.settings_or_exit("WEIR_REDIS_URL", "WEIR_MASTER_KEY")
    log.setup("gateway")
    gateway = Gateway(settings, on_ready=process.ready)
    config = uvicorn.Config(
        gateway,
        interface="asgi3",  # which uvicorn believes of a coroutine function only
        http=Listener,
        loop="uvloop",
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        # Nobody's X-Forwarded-For is believed: a key's networks are checked against the address of the connection.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(round(settings.grace_s), 1),
        host=settings.gateway_addr.host,
        port=settings.gateway_addr.port,
    )
    inherited = os.environ.get("WEIR_LISTEN_FD")
    sockets = [socket.socket(fileno=int(inherited))] if inherited else None
    Server(config, gateway).run(sockets=sockets)


if __name__ == "__main__":
    main()
