"""T11: clocks that jump: Redis by an hour, a gateway by a day, MongoDB by seven years."""

import asyncio
import struct
import time
from datetime import timedelta
from pathlib import Path

import pytest

from bench.provider import ScriptedProvider
from ledger import hot, keyspace, request_id
from ledger.cold import ColdBook, now
from ledger.hot import Admitted, Offer, Refused
from tests.faults import oracle, packages, site_oracle
from tests.faults.http_callers import Callers
from tests.faults.load import HOLD
from tests.faults.options import Tally, asked
from tests.faults.servers import Kind, MongoServer, RedisServer, started
from tests.faults.site import running
from tests.faults.world import World, worker_here, world
from tests.stack import eventually

STEPS = asked(full=20, short=4)
HOUR_S = 3_600
MINUTE_US = 60_000_000
SEVEN_YEARS_S = 7 * 366 * 86_400
_ONLY_THE_WALL = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
FOREVER = ("grants", "accounts", "api_keys", "statements", "epochs", "audit")


def shifted(seconds: int) -> dict[str, str]:
    """The environment of a process that lives so many seconds from now."""
    return {"LD_PRELOAD": str(packages.libfaketime()), "FAKETIME": f"{seconds:+d}", **_ONLY_THE_WALL}


class Clock:
    """Another time for a server, by a file that it looks at whenever it looks at the clock (`clock.c`)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.ahead_s = 0
        file.write_bytes(bytes(8))

    def set(self, ahead_s: int) -> None:
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", ahead_s))
        self.ahead_s = ahead_s

    @property
    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(packages.compiled("clock")), "WEIR_CLOCK": str(self._file)}


async def test_t11_redis_clock(main_kind: Kind, tally: Tally, tmp_path: Path, mongo_url: str) -> None:
    """An hour ahead, every lease has ended: what was live is abandoned and settled late. An hour back locks nobody out."""
    clock = Clock(tmp_path / "clock")
    redis = RedisServer(main_kind, tmp_path / "redis", env=clock.env)
    async with (
        started(redis),
        worker_here(redis.url, mongo_url),
        world(tally, redis.url, mongo_url, pace_s=1.0) as here,
    ):
        async with here.load.running():
            await here.load.admits()
            for number in range(STEPS):
                await asyncio.sleep(tally.random.uniform(0.4, 0.8))
                ahead, late = number % 4 in (0, 3), _late(here)
                clock.set(clock.ahead_s + (HOUR_S if ahead else -HOUR_S))
                began = time.monotonic()
                await here.load.admits()
                if ahead:
                    await eventually(lambda: _more_late(here), lambda count, late=late: count > late)  # type: ignore[misc]
                tally.add("steps")
                tally.peak("locked_out_s", round(time.monotonic() - began, 3))
        await _rate_after_a_step_back(tally, here, clock)
        tally.note(server=main_kind.name, late=_late(here), requests=len(here.load.records))
        tally.at_least(steps=STEPS, late=1)
        tally.at_most(locked_out_s=60, rate_wait_us=MINUTE_US)
        await oracle.conclude(tally, here.cold, here.redis, here.customers, here.load.records)
    tally.check()


def _late(here: World) -> int:
    return sum(record.end == "late" for record in here.load.records.values())


async def _more_late(here: World) -> int:
    return _late(here)


async def _rate_after_a_step_back(tally: Tally, here: World, clock: Clock) -> None:
    """A key whose minute is used up, when the clock goes back an hour: a minute's wait at most, and not an hour's."""
    customer = here.customers[0]
    record = keyspace.api_key(customer.place.partition, customer.place.key)
    assert await hot.publish(here.redis, customer.place.partition, record, 2, {"rpm": "1"})
    customer.key_version = 2
    waits = []
    for ahead_s in (clock.ahead_s, clock.ahead_s - HOUR_S):
        clock.set(ahead_s)
        for _ in range(2):
            rid = request_id.new()
            reply = await hot.admit(here.redis, customer.place, rid, customer.versions, Offer([HOLD], 0))
            if isinstance(reply, Admitted):
                here.load.records |= dict(await here.load.settle_all(customer, [rid]))
            else:
                assert isinstance(reply, Refused)
                assert reply.word == "RATE"
                waits.append(int(reply.details[2]))
    assert len(waits) >= 2, waits
    tally.note(rate_wait_us=max(waits))


@pytest.mark.parametrize("days", [1, -1])
async def test_t11_gateway_clock(days: int, tally: Tally, tmp_path: Path, valkey_kind: Kind, mongo_url: str) -> None:
    """Time is the server's: a gateway a day off admits, charges and is charged like any."""
    redis = RedisServer(valkey_kind, tmp_path / "redis")
    async with (
        ScriptedProvider() as provider,
        started(redis),
        running(tmp_path / "weir", redis.url, mongo_url, provider.url, gateway_env=shifted(days * 86_400)) as here,
    ):
        callers = Callers(here, tally.random, count=8)
        async with callers.running():
            await eventually(lambda: _paid(callers), lambda count: count >= asked(full=2_000, short=200), seconds=60)
        off = {"at": {"$not": {"$gt": now() - timedelta(hours=1), "$lt": now() + timedelta(hours=1)}}}
        tally.note(days=days, events_off=await here.cold.usage.count_documents(off))
        tally.at_most(events_off=0)
        await site_oracle.conclude(tally, here, callers, provider)
    tally.check()


async def _paid(callers: Callers) -> int:
    return len(callers.paid)


async def test_t11_mongod_clock(tally: Tally, tmp_path: Path, valkey_kind: Kind) -> None:
    """Seven years on, MongoDB has deleted what was marked for it, and nothing else."""
    folder = tmp_path / "mongod"
    every_second = ("--setParameter", "ttlMonitorSleepSecs=1")
    redis, mongod = RedisServer(valkey_kind, tmp_path / "redis"), MongoServer(folder, *every_second)
    async with (
        started(redis, mongod),
        worker_here(redis.url, mongod.url),
        world(tally, redis.url, mongod.url, pace_s=0.01) as here,
    ):
        async with here.load.running():
            await here.load.admits()
            await eventually(lambda: _ended(here), lambda count: count >= 200)
        await oracle.conclude(tally, here.cold, here.redis, here.customers, here.load.records)
        marked = await here.cold.usage.find({}, {"_id": 1}).limit(20).to_list()
        which = {"_id": {"$in": [event["_id"] for event in marked]}}
        await here.cold.usage.update_many(which, {"$set": {"purge_at": now() + timedelta(days=90)}})
        before = await _kept(here.cold)
    mongod.end()
    later = MongoServer(folder, *every_second, env=shifted(SEVEN_YEARS_S), port=mongod.server.port)
    async with started(later):
        cold = ColdBook(later.url)
        try:
            status = await cold.client.admin.command("hello")
            assert status["localTime"] > now() + timedelta(seconds=SEVEN_YEARS_S - 86_400)
            await eventually(lambda: cold.usage.count_documents(which), lambda count: count == 0, seconds=30)
            after = await _kept(cold)
        finally:
            await cold.close()
    before["usage"] -= len(marked)
    tally.note(deleted_as_marked=len(marked), deleted_otherwise=sum(before[name] - after[name] for name in before))
    tally.at_least(deleted_as_marked=20)
    tally.at_most(deleted_otherwise=0)
    tally.check()


async def _ended(here: World) -> int:
    return len(here.load.records)


async def _kept(cold: ColdBook) -> dict[str, int]:
    return {name: await cold.db[name].count_documents({}) for name in (*FOREVER, "usage")}
