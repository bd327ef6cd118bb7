"""T8: parallel admits for money that is not there for all. T9: revocations, and whoever asks after the answer."""

import asyncio
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from ledger import hot, keyspace, request_id
from ledger.hot import Admitted, Offer, Refused
from ledger.link import Link
from tests.faults import customers, oracle
from tests.faults.customers import Customer
from tests.faults.load import HOLD
from tests.faults.options import Tally, asked
from tests.faults.servers import Kind, RedisServer, started
from tests.faults.world import World, worker_here, world

RACES = asked(full=100, short=10)
REVOCATIONS = asked(full=10_000, short=1_000)
RACERS, COVERED = 1_000, 100
SCRIPTS_PER_S = 1_000


async def test_t8_overspend(main_kind: Kind, tally: Tally, tmp_path: Path, mongo_url: str) -> None:
    """A thousand at once for a balance that pays for a hundred: exactly a hundred, every time."""
    redis = RedisServer(main_kind, tmp_path / "redis")
    async with (
        started(redis),
        worker_here(redis.url, mongo_url),
        world(tally, redis.url, mongo_url, links=8, count=1, deadline_s=20) as here,
    ):
        spare = tally.random.randrange(HOLD)
        racing = await customers.make(here.cold, here.redis, tally.random, RACES, credited=COVERED * HOLD + spare)
        for customer in racing:
            replies = await asyncio.gather(*(_race(here, customer, number) for number in range(RACERS)))
            admitted = [rid for rid, reply in replies if isinstance(reply, Admitted)]
            tally.add("races")
            tally.add("admits", RACERS)
            tally.add("exactly_covered", len(admitted) == COVERED)
            words = {reply for _, reply in replies if isinstance(reply, Refused)}
            assert words == {Refused("FUNDS", (str(HOLD), str(spare)))}, words
            for rid, ended in await here.load.settle_all(customer, admitted):
                here.load.records[rid] = ended
        tally.note(server=main_kind.name)
        tally.at_least(races=RACES, exactly_covered=RACES)
        await oracle.conclude(tally, here.cold, here.redis, racing, here.load.records)
    tally.check()


async def _race(here: World, customer: Customer, number: int) -> tuple[str, Admitted | Refused]:
    rid = request_id.new()
    link = here.links[1 + number % (len(here.links) - 1)]
    return rid, await hot.admit(link, customer.place, rid, customer.versions, Offer([HOLD], 0))


class Asked(NamedTuple):
    """One admit that tried its luck on a key about to be revoked."""

    rid: str
    after: bool
    admitted: bool


async def test_t9_revocation(main_kind: Kind, tally: Tally, tmp_path: Path, mongo_url: str) -> None:
    """The moment that a revocation is answered, no admit passes any more; whatever version the caller believes in."""
    redis = RedisServer(main_kind, tmp_path / "redis")
    async with (
        started(redis),
        worker_here(redis.url, mongo_url),
        world(tally, redis.url, mongo_url, links=3, callers=32, pace_s=0.01) as here,
    ):
        load = here.load
        keys = await customers.make(here.cold, here.redis, tally.random, REVOCATIONS // 50, keys_each=50)
        async with load.running():
            await load.admits()
            for start in range(0, REVOCATIONS, 50):
                part = keys[start : start + 50]
                for trials in await asyncio.gather(*(_revoke(tally, here, customer) for customer in part)):
                    tally.add("revocations")
                    tally.add("admits_before", sum(one.admitted for one in trials if not one.after))
                    tally.add("asked_after", sum(one.after for one in trials))
                    tally.add("admits_after", sum(one.admitted for one in trials if one.after))
        tally.note(server=main_kind.name, scripts_per_s=load.scripts_per_s)
        tally.at_least(
            revocations=REVOCATIONS,
            asked_after=REVOCATIONS,
            admits_before=REVOCATIONS // 10,
        )
        tally.at_least_rate(scripts_per_s=SCRIPTS_PER_S)
        tally.at_most(admits_after=0)
        await oracle.conclude(tally, here.cold, here.redis, here.customers + keys, load.records)
    tally.check()


async def _revoke(tally: Tally, here: World, customer: Customer) -> list[Asked]:
    """Three callers ask again and again on their own connections; one revocation is answered in their midst."""
    trials: list[Asked] = []
    answered = asyncio.Event()
    links = here.links[1:]
    versions = (1, 2, 1)

    async def ask(link: Link, version: int) -> None:
        late = 0
        while late < 2:
            rid, after = request_id.new(), answered.is_set()
            late += after
            seen = structs.replace(customer.versions, key=version)
            reply = await hot.admit(link, customer.place, rid, seen, Offer([HOLD], 0))
            trials.append(Asked(rid, after, isinstance(reply, Admitted)))

    async def revoke() -> None:
        await asyncio.sleep(tally.random.uniform(0, 0.01))
        record = keyspace.api_key(customer.place.partition, customer.place.key)
        assert await hot.publish(here.redis, customer.place.partition, record, 2, {"status": "revoked"})
        answered.set()

    await asyncio.gather(revoke(), *(ask(*each) for each in zip(links, versions, strict=True)))
    admitted = [one.rid for one in trials if one.admitted]
    for rid, ended in await here.load.settle_all(customer, admitted):
        here.load.records[rid] = ended
    return trials
