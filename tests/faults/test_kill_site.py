"""T3 through the gateway: kill -9 of every process of a whole site while callers are served and operators grant."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bench.provider import ScriptedProvider
from tests.faults import site_oracle
from tests.faults.http_callers import Callers, Operators
from tests.faults.options import FORM, RECOVERY_S, Tally, asked
from tests.faults.servers import KINDS, MongoServer, Program, RedisServer, since, started
from tests.faults.site import running
from tests.faults.test_kill import RECOVERED
from tests.faults.world import lead_again, written_again

KILLS = asked(full=100, short=5)
REQUESTS_PER_S = 200
# A dead admin's transaction keeps its account's documents until mongod gives it up: after 60 s, unless it is told otherwise.
SHORT_LIVED = ("--setParameter", "transactionLifetimeLimitSeconds=1")
ALL = ("gateway", "admin", "redis", "worker", "mongod")
RUNS = [(name,) for name in ALL] if FORM == "full" else [("gateway", "admin")]


@pytest.mark.parametrize("victims", RUNS, ids="-".join)
async def test_t3_kill_site(victims: tuple[str, ...], tally: Tally, tmp_path: Path) -> None:
    redis, mongod = RedisServer(KINDS["valkey"](), tmp_path / "redis"), MongoServer(tmp_path / "mongod", *SHORT_LIVED)
    async with (
        ScriptedProvider() as provider,
        started(redis, mongod),
        running(tmp_path / "weir", redis.url, mongod.url, provider.url) as here,
    ):
        callers, operators = Callers(here, tally.random), Operators(here, tally.random)

        async def served(program: Program) -> None:
            program.spawn()
            await (operators if program is here.admin else callers).serves()

        programs = {
            "gateway": here.gateway,
            "admin": here.admin,
            "redis": redis,
            "worker": here.ledger,
            "mongod": mongod,
        }

        async def mongod_again() -> None:
            began = time.monotonic()
            await callers.serves()
            tally.peak("mongod_served_s", since(began))
            await mongod.start()
            tally.peak("mongod_followed_s", await written_again(here.cold))

        again: dict[str, Callable[[], Awaitable[None]]] = {
            "gateway": lambda: served(here.gateway),
            "admin": lambda: served(here.admin),
            "redis": lambda: served(redis),
            "worker": lambda: lead_again(here.ledger, here.cold),
            "mongod": mongod_again,
        }

        async def kill(name: str) -> None:
            while tally.counts.get(f"{name}_kills_of_live", 0) < KILLS:
                await asyncio.sleep(tally.random.uniform(0.2, 0.6))
                live = await (operators if name == "admin" else callers).waits()
                programs[name].kill()
                tally.add(f"{name}_kills")
                tally.add(f"{name}_kills_of_live", live)
                began = time.monotonic()
                await again[name]()
                tally.peak(f"{name}_back_s", since(began))

        async with callers.running(), operators.running(), asyncio.TaskGroup() as killers:
            for name in victims:
                killers.create_task(kill(name))
        tally.at_least(**{f"{name}_kills_of_live": KILLS for name in victims})
        tally.at_least_rate(requests_per_s=REQUESTS_PER_S)
        bounded = [what for name in victims for what in RECOVERED.get(name, (f"{name}_back_s",))]
        tally.at_most_seconds(**dict.fromkeys(bounded, RECOVERY_S))
        # A dead gateway takes along what it had not settled, and no more: what was under way.
        tally.at_most(abandoned=tally.counts.get("gateway_kills", 0) * callers.count)
        tally.note(grants=operators.grants, operators_statuses=dict(operators.statuses))
        granted, died = operators.granted_nanos, "gateway" in victims
        await site_oracle.conclude(tally, here, callers, provider, granted=granted, died=died)
    tally.check()
