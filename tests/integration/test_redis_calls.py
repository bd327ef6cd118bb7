"""What a request costs Redis, by the server's own count: one admit and one settle, and no other command."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Monitor

from bench.provider import Behaviour
from ledger import keys
from ledger.scripts import SCRIPTS
from tests.integration.test_failover import pool
from tests.stack import Stack, eventually, http

NAMES = {script.sha.decode(): script.name for script in SCRIPTS}


@pytest.fixture
async def server(stack: Stack) -> AsyncIterator[Redis]:
    stores = stack.stores
    async with Redis.from_url(stores["redis"]) as client:
        yield client


@asynccontextmanager
async def alone(stack: Stack) -> AsyncIterator[None]:
    """The gateway has Redis to itself: the ledger worker stands still, for much less than its lease."""
    worker = stack.child("ledger")
    worker.suspend()
    try:
        yield
    finally:
        worker.resume()


async def sent(monitor: Monitor) -> Counter[str]:
    """The commands that clients have sent between two ECHOs: their first word, and of a script which one it was. What a
    script calls by itself does not count.
    """
    found, echoes = Counter[str](), 0
    async for each in monitor.listen():
        word, *more = each["command"].split(" ")
        echoes += word == "ECHO"
        if echoes == 2:
            break
        if echoes and word != "ECHO" and each["client_type"] != "lua":
            found[NAMES.get(more[0], more[0]) if word == "EVALSHA" else word] += 1
    return found


async def scripts(server: Redis) -> int:
    found: Any = await server.info("commandstats")
    return int(found.get("cmdstat_evalsha", {}).get("calls", 0))


async def test_a_request_is_two_scripts_and_no_other_command(stack: Stack, server: Redis) -> None:
    """Whole, streamed, and with an upstream that fails first; what is known of a key and of the catalogue is read before."""
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 2, priority=[0, 1], limits=[{"concurrency": 1_000}, {}])
        customer = await stack.customer()
        assert await here.many(customer, 1) == {200: 1}
        await stack.settled(customer.id)
        async with alone(stack), server.monitor() as monitor:
            await server.config_resetstat()
            await server.echo("begin")
            assert await here.many(customer, 40) == {200: 40}
            assert await here.many(customer, 40, stream=True) == {200: 40}
            here.providers[0].script(Behaviour(status=500))
            assert await here.many(customer, 20) == {200: 20}
            assert here.providers[0].stats.requests > 81, "some of the last were asked there first"
            assert await eventually(lambda: scripts(server), lambda count: count >= 200) == 200
            await server.echo("end")
            words = await sent(monitor)
        del words["INFO"]  # ours
        assert words == {"admit": 100, "settle": 100}


async def test_a_key_that_was_mistyped_costs_redis_nothing(stack: Stack, server: Redis) -> None:
    """Its checksum is wrong, so nobody need be asked; a made-up one that is right costs a look."""
    customer = await stack.customer()
    mistyped = customer.key[:-1] + ("A" if customer.key[-1] != "A" else "B")
    strangers = [keys.mint(customer.key[5:7])[0] for _ in range(2)]
    async with alone(stack), server.monitor() as monitor, http(base_url=stack.base_url) as client:

        async def refused(key: str) -> None:
            answer = await client.post("/chat/completions", json={}, headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == 401

        await refused(strangers.pop())  # the server knows the script from now on
        await server.echo("begin")
        for key in (mistyped, "junk", *strangers):
            await refused(key)
        await server.echo("end")
        assert await sent(monitor) == {"look": 1}


def test_the_bundled_valkey_has_jemalloc_where_the_system_has_it(stack: Stack) -> None:
    [server] = [each for each in stack.processes() if each.name().startswith("valkey")]
    loaded = "jemalloc" in Path(f"/proc/{server.pid}/maps").read_text()
    assert loaded is (find_library("jemalloc") is not None)
