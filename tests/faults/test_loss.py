"""T7: Redis is emptied under load and refilled from MongoDB. T6: a replica that lacks the last writes is promoted."""

import asyncio
import shutil
import time
from pathlib import Path

from ledger import hot, request_id
from ledger.hot import Fenced, Offer
from ledger.link import Link
from tests.faults import oracle
from tests.faults.load import HOLD
from tests.faults.options import RECOVERY_S, Tally, asked
from tests.faults.proxy import FaultProxy
from tests.faults.servers import Kind, RedisServer, since, started
from tests.faults.world import World, ledger_process, worker_here, world
from tests.stack import eventually

WIPES = asked(full=20, short=3)
ACCOUNTS = asked(full=10_000, short=200)
PROMOTIONS = asked(full=50, short=3)
FENCED_TRIES = 20
LAG = 1_000  # acknowledged before the cut, and perhaps not yet with the replica
REPLICATION = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--repl-timeout", "10")


async def test_t7_wipe(main_kind: Kind, tally: Tally, tmp_path: Path, mongo_url: str) -> None:
    """What was acknowledged and not yet in MongoDB is said again, as by a gateway that keeps it until a barrier."""
    redis = RedisServer(main_kind, tmp_path / "redis")
    # A process of its own, as in production: here the callers, who ask without a pause, would take turns with it.
    ledger = ledger_process(tmp_path, redis.url, mongo_url)
    async with (
        started(redis, ledger),
        world(tally, redis.url, mongo_url, count=ACCOUNTS, pace_s=0.02) as here,
    ):
        load = here.load
        async with load.running():
            await load.admits()
            for number in range(WIPES):
                await asyncio.sleep(tally.random.uniform(0.2, 0.6))
                tally.add("wipes")
                tally.add("wipes_of_live", await load.waits())
                began = time.monotonic()
                if number % 2:
                    redis.kill()
                    shutil.rmtree(redis.folder / "appendonlydir")
                    redis.spawn()
                else:
                    await here.redis.command("FLUSHALL")
                await load.admits(within_s=60)
                tally.peak("back_s", since(began))
                for end, count in (await load.resubmit(list(load.records))).items():
                    tally.add(f"said_again_{end}", count)
        tally.note(server=main_kind.name, accounts=ACCOUNTS, requests=len(load.records))
        tally.at_least(wipes=WIPES)
        tally.at_most_seconds(back_s=RECOVERY_S)
        await oracle.conclude(tally, here.cold, here.redis, here.customers, load.records)
    tally.check()


async def test_t6_promotion(main_kind: Kind, tally: Tally, tmp_path: Path, mongo_url: str) -> None:
    """A to B to A and so on; each time the last writes never reached the other side, and the worker drained some."""
    first, second = (RedisServer(main_kind, tmp_path / name, *REPLICATION) for name in ("a", "b"))
    async with (
        started(first, second),
        FaultProxy(first.port, tally.random) as switch,
        FaultProxy(first.port, tally.random) as replication,
        worker_here(url := f"redis://127.0.0.1:{switch.port}", mongo_url),
        world(tally, url, mongo_url, pace_s=0.02) as here,
    ):
        primary, replica = first, second
        load = here.load
        async with load.running():
            await load.admits()
            for _ in range(PROMOTIONS):
                replication.target = primary.port
                replication.heal()
                await _follow(replica, replication.port)
                followed = len(load.records)
                replication.sever()
                await asyncio.sleep(tally.random.uniform(0.05, 0.3))
                await _promote(tally, here, replica)
                began = time.monotonic()
                switch.target = replica.port
                switch.reset_all()
                await load.admits()
                tally.add("promotions")
                tally.peak("back_s", since(began))
                for end, count in (await load.resubmit(list(load.records)[max(followed - LAG, 0) :])).items():
                    tally.add(f"said_again_{end}", count)
                primary, replica = replica, primary
        tally.note(server=main_kind.name, requests=len(load.records))
        tally.at_least(promotions=PROMOTIONS, fenced=PROMOTIONS * FENCED_TRIES, said_again_orphan=1)
        tally.at_most(admits_before_reopening=0)
        tally.at_most_seconds(back_s=RECOVERY_S)
        await oracle.conclude(tally, here.cold, here.redis, here.customers, load.records)
    tally.check()


async def _follow(replica: RedisServer, port: int) -> None:
    """Make it a replica, and wait until it has everything."""
    async with Link(replica.url, deadline_s=10) as link:
        await link.command("REPLICAOF", "127.0.0.1", port)

        async def linked() -> bool:
            return b"master_link_status:up" in await link.command("INFO", "replication")

        await eventually(linked, bool, seconds=30)


async def _promote(tally: Tally, here: World, replica: RedisServer) -> None:
    """REPLICAOF NO ONE; and before any worker has seen it, nobody is admitted."""
    tally.add("admits_before_reopening", 0)
    async with Link(replica.url) as link:
        await link.command("REPLICAOF", "NO", "ONE")
        for _ in range(FENCED_TRIES):
            customer = tally.random.choice(here.customers)
            rid = request_id.new()
            try:
                await hot.admit(link, customer.place, rid, customer.versions, Offer([HOLD], 0))
            except Fenced:
                tally.add("fenced")
            else:
                tally.add("admits_before_reopening")
