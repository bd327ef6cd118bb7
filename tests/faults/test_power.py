"""T4: power cuts. What the kernel had not been told to keep is gone, in part or in whole; what was acknowledged is not."""

import asyncio
import time
from pathlib import Path

from tests.faults import oracle
from tests.faults.load import Load
from tests.faults.options import RECOVERY_S, Tally, asked
from tests.faults.servers import Kind, PoweredRedis, since, started
from tests.faults.world import worker_here, world

CUTS = {"valkey-9.1": asked(full=200, short=8), "redis-7.0": asked(full=200, short=4)}
SLOW_DISK_US = 1_500  # so that nearly every cut finds something that is not on the disk


async def test_t4_power_cut(kind: Kind, tally: Tally, tmp_path: Path, mongo_url: str) -> None:
    """Cut, restart, serve, die again, restart: a torn tail shows only at the second restart (reliability.md 0.1)."""
    cuts, redis = CUTS[kind.name], PoweredRedis(kind, tmp_path / "redis", slow_us=SLOW_DISK_US)
    async with (
        started(redis),
        worker_here(redis.url, mongo_url),
        world(tally, redis.url, mongo_url, pace_s=0.01) as here,
    ):
        load = here.load
        async with load.running():
            await load.admits()
            while _more(tally, cuts):
                await asyncio.sleep(tally.random.uniform(0.05, 0.3))
                hit = await load.waits()
                synced, cut, size = redis.cut_power(tally.random)
                tally.add("cuts")
                tally.add("cuts_of_live", hit)
                tally.add("cuts_into_unsynced", size > synced)
                tally.add("bytes_lost", size - cut)
                await _back(redis, load, tally)
                await asyncio.sleep(tally.random.uniform(0.01, 0.1))
                redis.kill()
                await _back(redis, load, tally)
        tally.note(server=kind.name, scripts_per_s=load.scripts_per_s, requests=len(load.records))
        tally.at_least(cuts=cuts, cuts_into_unsynced=cuts // 2)
        tally.at_most_seconds(back_s=RECOVERY_S)
        await oracle.conclude(tally, here.cold, here.redis, here.customers, load.records)
    tally.check()


def _more(tally: Tally, cuts: int) -> bool:
    """Until so many cuts were made and half of them lost something: how often one does is up to the disk."""
    made, into_unsynced = tally.counts.get("cuts", 0), tally.counts.get("cuts_into_unsynced", 0)
    return bool(made < 4 * cuts and (made < cuts or into_unsynced < cuts // 2))


async def _back(redis: PoweredRedis, load: Load, tally: Tally) -> None:
    began = time.monotonic()
    redis.spawn()
    await load.admits()
    tally.peak("back_s", since(began))
