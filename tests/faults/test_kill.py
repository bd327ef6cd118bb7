"""T3: kill -9 of Redis, the ledger worker and MongoDB, at any moment, under load."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ledger import keyspace
from ledger.link import StoreUnavailable
from tests.faults import oracle
from tests.faults.options import FORM, RECOVERY_S, Tally, asked
from tests.faults.servers import KINDS, MongoServer, Program, RedisServer, since, started
from tests.faults.world import World, lead_again, ledger_process, world, written_again

KILLS = asked(full=100, short=4)
SCRIPTS_PER_S = 500
ONE_BY_ONE = [(kind, (victim,)) for kind in KINDS for victim in ("redis", "worker", "mongod")]
# From a death to the next request served. Requests do not wait for MongoDB, so of its death it is also how soon the worker
# writes again once it answers: how long it takes to start, the more it has the longer, is its own affair.
RECOVERED = {
    "redis": ("redis_back_s",),
    "worker": ("worker_back_s",),
    "mongod": ("mongod_served_s", "mongod_followed_s"),
}
# The short form kills all three in one run, each in its own time, and the older server alone.
RUNS = [("valkey", ("redis", "worker", "mongod")), *(ONE_BY_ONE if FORM == "full" else [("redis", ("redis",))])]


class Killer:
    """Kills one process again and again, 0.2 - 0.6 s after it serves, and begins it again."""

    def __init__(self, name: str, victim: Program, tally: Tally, load: World) -> None:
        self._name = name
        self._victim = victim
        self._tally = tally
        self._world = load

    async def run(self, again: Callable[[], Awaitable[None]]) -> None:
        kills, hits = f"{self._name}_kills", f"{self._name}_kills_of_live"
        self._tally.at_least(**{hits: KILLS})
        for _ in range(4 * KILLS):
            await asyncio.sleep(self._tally.random.uniform(0.2, 0.6))
            live = await self._hits_something()
            self._victim.kill()
            self._tally.add(kills)
            self._tally.add(hits, int(live))
            began = time.monotonic()
            await again()
            self._tally.peak(f"{self._name}_back_s", since(began))
            if self._tally.counts[hits] >= KILLS:
                return

    async def _hits_something(self) -> bool:
        """Until a kill hits something: a call that waits for its answer, or an event on its way; False if none comes."""
        if self._name == "redis":
            return await self._world.load.waits()
        for _ in range(20):
            if await self._on_their_way():
                return True
        return False

    async def _on_their_way(self) -> bool:
        with contextlib.suppress(StoreUnavailable):
            redis = self._world.redis
            lengths = await asyncio.gather(*(redis.command("XLEN", keyspace.usage(p)) for p in keyspace.PARTITIONS))
            return any(lengths)
        return False


@pytest.mark.parametrize(
    ("kind", "victims"), RUNS, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
async def test_t3_kill(kind: str, victims: tuple[str, ...], tally: Tally, tmp_path: Path) -> None:
    redis, mongod = RedisServer(KINDS[kind](), tmp_path / "redis"), MongoServer(tmp_path / "mongod")
    ledger = ledger_process(tmp_path, redis.url, mongod.url)
    # A MongoDB that mostly starts falls far behind 3,000 scripts a second; half of that is three times what is asked for.
    callers = 32 if victims == ("mongod",) else 96
    alone = len(victims) == 1
    async with started(redis, mongod, ledger), world(tally, redis.url, mongod.url, callers=callers) as here:

        async def redis_again() -> None:
            redis.spawn()
            await here.load.admits()

        async def worker_again() -> None:
            await lead_again(ledger, here.cold)

        async def mongod_again() -> None:
            if alone:  # else Redis may be down as well, and opens again with MongoDB only
                began = time.monotonic()
                await here.load.admits(within_s=60)
                tally.peak("mongod_served_s", since(began))  # without it, and so however long it takes to start
            await mongod.start()
            tally.peak("mongod_followed_s", await written_again(here.cold))

        again = {"redis": redis_again, "worker": worker_again, "mongod": mongod_again}
        programs: dict[str, Program] = {"redis": redis, "worker": ledger, "mongod": mongod}
        async with here.load.running():
            await here.load.admits()
            async with asyncio.TaskGroup() as killers:
                for name in victims:
                    killers.create_task(Killer(name, programs[name], tally, here).run(again[name]))
        tally.note(server=redis.kind.name, scripts_per_s=here.load.scripts_per_s, requests=len(here.load.records))
        tally.at_least_rate(scripts_per_s=SCRIPTS_PER_S)
        if alone:  # when several die together, one waits for the others
            tally.at_most_seconds(**dict.fromkeys(RECOVERED[victims[0]], RECOVERY_S))
        await oracle.conclude(tally, here.cold, here.redis, here.customers, here.load.records)
    tally.check()
