"""T5: a network that loses replies, resets, cuts frames, delays and falls silent, between every two of our processes."""

from pathlib import Path

from bench.provider import ScriptedProvider
from tests.faults import oracle, site_oracle
from tests.faults.http_callers import Callers
from tests.faults.options import Tally, asked
from tests.faults.proxy import FaultProxy, Faults
from tests.faults.servers import Kind, MongoServer, RedisServer, started
from tests.faults.site import running
from tests.faults.world import ledger_process, world
from tests.stack import eventually

REQUESTS = asked(full=20_000, short=2_000)
SITE_REQUESTS = asked(full=20_000, short=500)
FAULTY_PERCENT = 20
# Per chunk of a pipelined connection, so a request sees more than one of them; a hole costs a deadline.
CALLERS = Faults(drop=0.03, reset=0.03, cut=0.03, delay=0.10, hole=0.004, delay_s=0.02)
WORKER = Faults(drop=0.01, reset=0.01, cut=0.01, delay=0.05, hole=0.0005)
GATEWAY = Faults(drop=0.03, reset=0.03, cut=0.03, delay=0.10, hole=0.0005, delay_s=0.02)


async def test_t5_network(main_kind: Kind, tally: Tally, tmp_path: Path) -> None:
    """Scripts through faults on the callers' side, events through faults on both of the worker's sides."""
    redis, mongod = RedisServer(main_kind, tmp_path / "redis"), MongoServer(tmp_path / "mongod")
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
            server=main_kind.name,
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


async def test_t5_network_site(tally: Tally, tmp_path: Path, valkey_kind: Kind) -> None:
    """The same between a gateway and its Redis: whatever callers are told, what the provider bills is what is charged."""
    redis, mongod = RedisServer(valkey_kind, tmp_path / "redis"), MongoServer(tmp_path / "mongod")
    async with (
        ScriptedProvider() as provider,
        started(redis, mongod),
        FaultProxy(redis.port, tally.random) as line,
        FaultProxy(mongod.server.port, tally.random) as mongo_line,
        running(
            tmp_path / "weir",
            redis.url,
            mongod.url,
            provider.url,
            gateway_redis=_at(line),
            ledger_mongo=_mongo_at(mongo_line),
        ) as here,
    ):
        callers = Callers(here, tally.random, count=24)
        line.broke = lambda: tally.add("requests_hit", callers.unanswered)
        line.faults, mongo_line.faults = GATEWAY, WORKER
        async with callers.running():

            async def asked_for() -> int:
                return sum(callers.statuses.values())

            await eventually(asked_for, lambda count: count >= SITE_REQUESTS, seconds=900)
        line.faults = mongo_line.faults = Faults()
        requests = sum(callers.statuses.values())
        tally.note(
            requests=requests,
            faults=dict(line.injected),
            mongo_faults=dict(mongo_line.injected),
            # What breaks the gateway's one connection hits every request that is under way.
            hit_percent=round(100 * tally.counts["requests_hit"] / requests, 1),
        )
        tally.at_least(requests=SITE_REQUESTS, hit_percent=FAULTY_PERCENT)
        await site_oracle.conclude(tally, here, callers, provider)
    tally.check()


def _at(proxy: FaultProxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}"


def _mongo_at(proxy: FaultProxy) -> str:
    """Direct, or the driver would learn the real address and go around the proxy."""
    return f"mongodb://127.0.0.1:{proxy.port}/weir?directConnection=true&socketTimeoutMS=2000"
