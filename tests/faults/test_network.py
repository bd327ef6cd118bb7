"""T5: a network that loses replies, resets, cuts frames, delays and falls silent, between every two of our processes."""

from pathlib import Path

from tests.faults import oracle
from tests.faults.options import Tally, asked
from tests.faults.proxy import FaultProxy, Faults
from tests.faults.servers import Kind, MongoServer, RedisServer, started
from tests.faults.world import ledger_process, world
from tests.stack import eventually

REQUESTS = asked(full=20_000, short=2_000)
FAULTY_PERCENT = 20
# Per chunk of a pipelined connection, so a request sees more than one of them; a hole costs a deadline.
CALLERS = Faults(drop=0.03, reset=0.03, cut=0.03, delay=0.10, hole=0.004, delay_s=0.02)
WORKER = Faults(drop=0.01, reset=0.01, cut=0.01, delay=0.05, hole=0.0005)


async def test_t5_network(kind: Kind, tally: Tally, tmp_path: Path, mongo_url: str) -> None:
    """Scripts through faults on the callers' side, events through faults on both of the worker's sides."""
    redis, mongod = RedisServer(kind, tmp_path / "redis"), MongoServer(tmp_path / "mongod")
    async with (
        started(redis, mongod),
        FaultProxy(redis.port, tally.random) as callers_line,
        FaultProxy(redis.port, tally.random) as worker_line,
        FaultProxy(mongod.server.port, tally.random) as mongo_line,
        started(ledger_process(tmp_path, _at(worker_line), _mongo_at(mongo_line))),
        world(
            tally, redis.url, mongod.url, load_url=_at(callers_line), links=16, callers=64, pace_s=0.005, deadline_s=0.3
        ) as here,
    ):
        load = here.load
        async with load.running():
            await load.admits()
            callers_line.faults, worker_line.faults, mongo_line.faults = CALLERS, WORKER, WORKER

            async def ended() -> int:
                return len(load.records)

            await eventually(ended, lambda count: count >= REQUESTS, seconds=600)
            callers_line.faults = Faults()
        worker_line.faults = mongo_line.faults = Faults()
        faulty = len(load.failed & load.records.keys())
        tally.note(
            server=kind.name,
            requests=len(load.records),
            faulty_requests=faulty,
            faulty_percent=round(100 * faulty / len(load.records), 1),
            scripts_per_s=load.scripts_per_s,
            callers_faults=dict(callers_line.injected),
            worker_faults=dict(worker_line.injected),
            mongo_faults=dict(mongo_line.injected),
        )
        tally.at_least(requests=REQUESTS, faulty_percent=FAULTY_PERCENT)
        await oracle.conclude(tally, here.cold, here.redis, here.customers, load.records)
    tally.check()


def _at(proxy: FaultProxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}"


def _mongo_at(proxy: FaultProxy) -> str:
    """Direct, or the driver would learn the real address and go around the proxy."""
    return f"mongodb://127.0.0.1:{proxy.port}/weir?directConnection=true"
