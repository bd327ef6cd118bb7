"""The whole of Weir, each process by itself and each killable, on stores whose addresses may be proxies."""

import contextlib
import json
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ledger import keyspace
from ledger.cold import ColdBook
from ledger.link import Link
from tests.faults.servers import Program, python, started
from tests.faults.world import KEY, ledger_process
from tests.stack import Customer, Stack

TOKEN = "owner-token-of-the-fault-suite"


class Site(Stack):
    """What a Stack's user sees, without `weir up`: this suite starts and kills the processes itself."""

    def __init__(self, gateway: str, admin: str) -> None:
        self.gateway = gateway
        self.admin = admin
        self.token = TOKEN


@dataclass
class Running:
    """A site with its processes, both books, and a customer who can ask for a model."""

    site: Site
    gateway: Program
    ledger: Program
    admin: Program
    cold: ColdBook
    redis: Link
    customer: Customer
    model: str

    @property
    def host(self) -> tuple[str, int]:
        name, port = self.site.gateway.removeprefix("http://").split(":")
        return name, int(port)

    async def abandon_what_is_left(self) -> int:
        """End every lease now, and not in 45 s; the worker sweeps them. How many there were."""
        left = 0
        for partition in keyspace.PARTITIONS:
            for rid in await self.redis.command("ZRANGE", keyspace.due(partition), 0, -1):
                left += 1
                await self.redis.command("ZADD", keyspace.due(partition), "XX", 1, rid)
        return left


@asynccontextmanager
async def running(
    folder: Path,
    redis_url: str,
    mongo_url: str,
    provider_url: str,
    *,
    gateway_redis: str = "",
    ledger_mongo: str = "",
    gateway_env: dict[str, str] | None = None,
) -> AsyncIterator[Running]:
    """Start it, and make a customer with a model at this provider."""
    folder.mkdir(parents=True, exist_ok=True)
    with _listening() as gateway_socket, _listening() as admin_socket:
        env = {
            "WEIR_REDIS_URL": gateway_redis or redis_url,
            "WEIR_MASTER_KEY": KEY,
            "WEIR_DATA_DIR": str(folder),
            "WEIR_ALLOW_PRIVATE_UPSTREAMS": "on",
            "WEIR_ADMIN_TOKEN": TOKEN,
        }
        admin_env = {**env, "WEIR_REDIS_URL": redis_url, "WEIR_MONGO_URL": mongo_url}
        ledger = ledger_process(folder, gateway_redis or redis_url, ledger_mongo or mongo_url)
        admin = python("admin_api", admin_env, folder / "admin.log", admin_socket)
        gateway = python("gateway", env | (gateway_env or {}), folder / "gateway.log", gateway_socket)
        site = Site(_url(gateway_socket), _url(admin_socket))
        cold = ColdBook(mongo_url)
        try:
            async with started(ledger, admin, gateway), Link(redis_url, deadline_s=5, name="faults") as redis:
                model = await site.model(provider_url)
                customer = await site.customer("1000000")
                yield Running(site, gateway, ledger, admin, cold, redis, customer, model)
        finally:
            await cold.close()


def ask_body(model: str, words: int) -> bytes:
    """A request whose bill depends on how many words it has."""
    message = {"role": "user", "content": " ".join(["word"] * words)}
    return json.dumps({"model": model, "messages": [message], "max_tokens": 100}).encode()


def grant_body(cents: int) -> bytes:
    return json.dumps({"amount_usd": f"{cents / 100:.2f}", "kind": "top_up"}).encode()


def idempotency_key() -> str:
    return uuid.uuid4().hex


@contextlib.contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(2048)
        sock.setblocking(False)
        yield sock


def _url(sock: socket.socket) -> str:
    return f"http://127.0.0.1:{sock.getsockname()[1]}"
