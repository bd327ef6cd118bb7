"""Both stores, a worker, customers and load: what most runs are made of."""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from operator import lt
from pathlib import Path
from unittest.mock import patch

from pymongo.errors import PyMongoError

from ledger import publish, worker
from ledger.cold import ColdBook
from ledger.connections import client
from ledger.lease import EPOCH
from ledger.link import Link
from ledger.vault import Vault
from ledger.worker import Worker
from tests.conftest import MASTER_KEY
from tests.faults import customers
from tests.faults.customers import Customer
from tests.faults.load import Load
from tests.faults.options import Tally
from tests.faults.servers import Ended, Program, python, since
from tests.stack import eventually

KEY = base64.b64encode(MASTER_KEY).decode()


def ledger_process(folder: Path, redis_url: str, mongo_url: str) -> Program:
    """`python -m ledger`; it is ready once it leads and every partition is open."""
    env = {"WEIR_REDIS_URL": redis_url, "WEIR_MONGO_URL": mongo_url, "WEIR_MASTER_KEY": KEY}
    return python("ledger", env, folder / "ledger.log")


async def lead_again(worker: Program, cold: ColdBook) -> None:
    """Begin a worker that was killed, as its supervisor does; the dead one's lease ends at once, and not after its 10 s."""
    for _ in range(20):
        worker.spawn()
        with contextlib.suppress(PyMongoError):
            await cold.leases.update_one({"_id": "ledger"}, {"$set": {"until": EPOCH}})
        try:
            await worker.ready()
        except Ended:  # it found no MongoDB
            continue
        return
    raise AssertionError("the worker never led")


async def written_again(cold: ColdBook) -> float:
    """Until the worker has written an event that MongoDB did not have; the seconds since MongoDB answered again."""
    began = time.monotonic()

    async def newest() -> str:
        event = await cold.usage.find_one({}, {"_id": 1}, sort=[("_id", -1)])
        return str(event["_id"]) if event else ""

    before = await newest()
    await eventually(newest, partial(lt, before))
    return since(began)


@asynccontextmanager
async def worker_here(redis_url: str, mongo_url: str) -> AsyncIterator[Worker]:
    """The worker's own loops in this process, for runs that never kill it; it looks at the fence more often."""
    cold = ColdBook(mongo_url)
    reader = client(redis_url, timeout_s=10)
    try:
        await cold.prepare()
        await publish.ensure_pepper(cold, Vault(MASTER_KEY))
        with patch.object(worker, "_LOOK_EVERY_S", 0.02):
            async with Link(redis_url, name="faults-ledger", deadline_s=10) as link:
                running = Worker(cold, link, reader, on_ready=lambda: None)
                async with _task(running):
                    yield running
    finally:
        await reader.aclose()
        await cold.close()


@asynccontextmanager
async def _task(running: Worker) -> AsyncIterator[None]:

    task = asyncio.create_task(running.run())
    try:
        yield
    finally:
        running.stop()
        await asyncio.wait_for(task, 30)


@dataclass
class World:
    """What a run works on."""

    cold: ColdBook
    links: list[Link]
    customers: list[Customer]
    load: Load

    @property
    def redis(self) -> Link:
        return self.links[0]


@asynccontextmanager
async def world(
    tally: Tally,
    redis_url: str,
    mongo_url: str,
    *,
    links: int = 2,
    count: int = 8,
    callers: int = 48,
    pace_s: float = 0.04,
    deadline_s: float = 1.0,
    load_url: str = "",
) -> AsyncIterator[World]:
    """Customers and their load. Somebody else runs the worker; this waits until it has opened the partitions."""
    cold = ColdBook(mongo_url)
    try:
        await cold.prepare()
        async with contextlib.AsyncExitStack() as stack:
            own = await stack.enter_async_context(Link(redis_url, deadline_s=5, name="faults"))
            made = await customers.make(cold, own, tally.random, count)
            lines = [
                await stack.enter_async_context(Link(load_url or redis_url, deadline_s=deadline_s))
                for _ in range(links)
            ]
            load = Load(lines, made, tally.random, callers=callers, pace_s=pace_s)
            yield World(cold, [own, *lines], made, load)
    finally:
        await cold.close()
