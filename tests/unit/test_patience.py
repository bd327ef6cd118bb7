"""Nobody here hangs up before an SDK does."""

import ssl
from typing import Any

import pytest
import uvicorn

from gateway import __main__ as worker
from gateway.upstream import client
from ledger import log

# What the SDKs have: 600 s a read, and idle connections for 5 s at most.
SDKS_READ_S, SDKS_KEEP_S = 600, 5


@pytest.mark.wire("5.8")
@pytest.mark.parametrize("kind", ["fast", "httpx2"])
async def test_a_provider_may_think_as_long_as_sdks_wait(kind: str) -> None:
    sender = client.make_sender(kind, ssl.create_default_context(), public_only=False)
    if isinstance(sender, client.FastSender):
        waits: Any = sender._timeouts.read
    else:
        assert isinstance(sender, client.StockSender)
        waits = sender._extensions["timeout"]["read"]
    await sender.aclose()
    assert waits >= SDKS_READ_S


@pytest.mark.wire("5.8")
def test_idle_connections_are_kept_longer_than_sdks_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that closes first races with the next request."""
    made: list[uvicorn.Config] = []

    class Server:
        def __init__(self, config: uvicorn.Config, _gateway: object) -> None:
            made.append(config)

        def run(self, sockets: object) -> None:
            assert sockets is None

    monkeypatch.setenv("WEIR_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("WEIR_MASTER_KEY", "A" * 43 + "=")
    monkeypatch.delenv("WEIR_LISTEN_FD", raising=False)
    monkeypatch.setattr(worker, "Server", Server)
    monkeypatch.setattr(log, "setup", lambda _name: None)
    worker.main()
    [config] = made
    assert config.timeout_keep_alive > 2 * SDKS_KEEP_S
