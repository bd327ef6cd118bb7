"""A charge on its way survives what may happen to Redis and to the gateway: spill, barrier, claims; each posted once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from gateway.settler import Settler
from gateway.spill import Spill
from ledger import claims, hot, keyspace, publish, reopen, request_id
from ledger.audit import audit
from ledger.cold import ColdBook, now
from ledger.consumer import Consumer
from ledger.facts import Facts, encode
from ledger.hot import Offer, Place, Versions
from ledger.link import Link, StoreUnavailable
from ledger.settlement import Settlement
from ledger.vault import Vault
from tests.conftest import valkey
from tests.hashes import plant
from tests.stack import eventually
from weir.bundled import free_port

PLACE = Place("2a", "acct_settler", "keyaaaaaaaaa", "keyaaaaaaaaa")
CREDIT = 10**9


async def open_books(cold: ColdBook, redis: Link, vault: Vault, *, term: int = 1) -> None:
    """An account with credit, and every partition open."""
    await publish.ensure_pepper(cold, vault)
    account = {
        "_id": PLACE.account,
        "partition": PLACE.partition,
        "status": "active",
        "policy": {},
        "limits": {},
        "version": 1,
        "grant_number": 1,
        "credited_nanos": CREDIT,
        "dirty": False,
    }
    key = {
        "_id": PLACE.key,
        "partition": PLACE.partition,
        "account": PLACE.account,
        "line": PLACE.line,
        "digest": "d",
        "pepper": "1",
        "status": "active",
        "policy": {},
        "limits": {},
        "version": 1,
        "dirty": False,
    }
    await cold.accounts.update_one({"_id": PLACE.account}, {"$setOnInsert": account}, upsert=True)
    await cold.api_keys.update_one({"_id": PLACE.key}, {"$setOnInsert": key}, upsert=True)
    grant = {
        "_id": f"{PLACE.account}:1",
        "account": PLACE.account,
        "number": 1,
        "amount_nanos": CREDIT,
        "created_at": now(),
    }
    await cold.grants.update_one({"_id": grant["_id"]}, {"$setOnInsert": grant}, upsert=True)

    async def closed() -> int:
        found = await reopen.closed_partitions(redis)
        if found:
            await reopen.reopen(cold, redis, found, term=term)
        return len(found)

    await eventually(closed, lambda count: count == 0)


async def admitted(redis: Link) -> Settlement:
    """A request with a hold, and the settlement that is to end it."""
    rid = request_id.new()
    config = int(await redis.command("HGET", keyspace.meta(PLACE.partition), "config"))
    facts = Facts(
        account=PLACE.account,
        api_key=PLACE.key,
        model="m",
        dialect="openai",
        endpoint="chat.completions",
        price_version=1,
        streamed=False,
    )
    reply = await hot.admit(redis, PLACE, rid, Versions(1, 1, config), Offer([1_000_000], 10, facts=encode(facts)))
    assert isinstance(reply, hot.Admitted)
    return Settlement(rid, *PLACE, cost_nanos=1_000, tokens=None, admitted_us=reply.at_us, facts=facts)


async def drained(cold: ColdBook, redis: Link) -> int:
    """Move every event to MongoDB; how many there are, once the books agree."""
    await moved(cold, redis)
    report = await audit(cold, redis)
    assert report.agrees, report
    assert report.held_nanos == 0
    return report.events


async def moved(cold: ColdBook, redis: Link) -> None:
    """Every event that waits is in MongoDB."""
    consumer = Consumer(cold, redis, None)
    await consumer.step()  # what was read before and not acknowledged
    while await consumer.step():
        pass


@asynccontextmanager
async def settling(redis: Link, folder: Path, *, replicas: int = 0) -> AsyncIterator[Settler]:
    settler = Settler(redis, spill=Spill(folder), replicas=replicas)
    settler.start()
    try:
        yield settler
    finally:
        await settler.close(5)


async def test_what_waits_is_on_disk_and_the_next_gateway_settles_it(
    tmp_path: Path, cold: ColdBook, vault: Vault
) -> None:
    """Redis is away when ten requests end; the gateway dies; another finds its segment and nothing is lost or doubled."""
    port, folder = free_port(), tmp_path / "valkey"
    with valkey(folder, port=port) as server:
        async with Link(server.url) as redis:
            await open_books(cold, redis, vault)
            settlements = [await admitted(redis) for _ in range(10)]
    spill = Spill(tmp_path / "spill")
    async with Link(server.url) as redis:
        settler = Settler(redis, spill=spill)
        settler.start()
        for settlement in settlements:
            settler.put(settlement)

        async def spilled() -> int:
            return sum(spill.holds(s.rid) for s in settlements)

        await eventually(spilled, lambda count: count == 10)
        assert Spill(tmp_path / "spill").adopt() == [], "a living worker's segment is its own"
        # It dies: nothing of it runs any more, and the kernel takes its locks.
        for task in (*settler._loops, *settler._tasks):
            task.cancel()
        spill.close()
    with valkey(folder, port=port) as server:
        async with Link(server.url) as redis:
            await open_books(cold, redis, vault, term=2)
            async with settling(redis, tmp_path / "spill") as heir:
                await eventually(lambda: settled(redis), lambda count: count == 10)
                assert not heir.full
            assert list((tmp_path / "spill").iterdir()) == [], "what has arrived is not kept"
            assert await drained(cold, redis) == 10


async def test_an_error_reply_is_no_reason_to_give_a_charge_up(
    tmp_path: Path, cold: ColdBook, redis: Link, vault: Vault
) -> None:
    """A server that takes no writes for a while (NOREPLICAS here) gets the charge when it takes them again."""
    await open_books(cold, redis, vault)
    settlement = await admitted(redis)
    async with settling(redis, tmp_path / "spill") as settler:
        await redis.command("CONFIG", "SET", "min-replicas-to-write", 1)
        settler.put(settlement)

        async def waits() -> bool:
            return settler._spill.holds(settlement.rid)

        await eventually(waits, bool)
        assert await settled(redis) == 0
        await redis.command("CONFIG", "SET", "min-replicas-to-write", 0)
        await eventually(lambda: settled(redis), lambda count: count == 1)
    assert await drained(cold, redis) == 1


class Wire:
    """A connection's transport, and what was written to it."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_charge_goes_in_one_write_with_the_admit_that_comes_behind_it(
    tmp_path: Path, cold: ColdBook, redis: Link, vault: Vault, turns: int
) -> None:
    """A caller who asks again at once waits for one write to the disk, not for that of its last charge as well.

    The charge stays before the admit, which may need the place and the money that it gives back.
    """
    await open_books(cold, redis, vault)
    settlement = await admitted(redis)
    conversation = redis._conversation
    assert conversation is not None
    async with settling(redis, tmp_path / "spill") as settler:
        wire: Any = Wire(conversation._transport)
        conversation._transport = wire
        settler.put(settlement)
        for _ in range(turns):  # of the loop, in which the next request arrives
            await asyncio.sleep(0)
        assert await redis.command("ECHO", "the next admit") == b"the next admit"
        charge, admit = (wire.writes[0].find(words) for words in (settlement.rid.encode(), b"the next admit"))
        assert 0 < charge < admit
    assert await drained(cold, redis) == 1


async def settled(redis: Link) -> int:
    return int(await redis.command("XLEN", keyspace.usage(PLACE.partition)))


def test_a_torn_line_in_a_segment_is_not_a_settlement(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    facts = Facts(account="a", api_key="k", model="m", dialect="d", endpoint="e", price_version=1, streamed=False)
    one = Settlement("r1", *PLACE, cost_nanos=1, tokens=None, admitted_us=1, facts=facts)
    two = Settlement("r2", *PLACE, cost_nanos=2, tokens=None, admitted_us=1, facts=facts)
    spill.write([one, two])
    spill.close()
    [path] = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(path.read_bytes()[:-10])
    heir = Spill(tmp_path)
    assert heir.adopt() == [one]
    heir.done("r1")
    assert list(tmp_path.iterdir()) == []


async def test_a_lost_tail_is_settled_again_and_charged_once(tmp_path: Path, cold: ColdBook, vault: Vault) -> None:
    """Failover: what the old primary acknowledged and never passed on is given to the new one."""
    port, other = free_port(), free_port()
    with valkey(tmp_path / "a", port=port) as primary:
        async with Link(primary.url) as redis, settling(redis, tmp_path / "spill", replicas=1) as settler:
            await open_books(cold, redis, vault)
            with valkey(tmp_path / "b", port=other) as replica:
                async with Link(replica.url) as following:
                    await following.command("REPLICAOF", "127.0.0.1", port)
                    await eventually(lambda: linked(following), lambda up: up)
                    # The first server to follow makes a primary take a new name, and that is fenced like any other.
                    await open_books(cold, redis, vault, term=2)
                    passed = [await admitted(redis) for _ in range(5)]
                    for settlement in passed:
                        settler.put(settlement)
                    await eventually(lambda: unsettled(settler), lambda count: count == 0)
                    lost = [await admitted(redis) for _ in range(5)]
                    await eventually(lambda: held(following), lambda count: count == 5)
                    await following.command("REPLICAOF", "NO", "ONE")
                    for settlement in lost:
                        settler.put(settlement)
                    await eventually(lambda: acknowledged(settler), lambda count: count == 5)
            # The primary vanishes, and the other one's data answers at its address.
            await redis.command("CONFIG", "SET", "appendonly", "no")
            task = asyncio.create_task(wait_for_the_end(settler))
            with_successor = tmp_path / "b"
            await fail_over(redis, primary.port, with_successor, cold, vault, settler)
            await task


async def linked(redis: Link) -> bool:
    return b"master_link_status:up" in await redis.command("INFO", "replication")


async def held(redis: Link) -> int:
    return int(await redis.command("ZCARD", keyspace.due(PLACE.partition)))


async def unsettled(settler: Settler) -> int:
    return len(settler._waiting) + len(settler._kept)


async def acknowledged(settler: Settler) -> int:
    return len(settler._kept) if not settler._waiting else -1


async def wait_for_the_end(settler: Settler) -> None:
    await eventually(lambda: unsettled(settler), lambda count: count == 0, seconds=90)


async def fail_over(redis: Link, port: int, folder: Path, cold: ColdBook, vault: Vault, settler: Settler) -> None:
    with_no_wait = redis.command("SHUTDOWN", "NOSAVE", "NOW")
    await asyncio.gather(with_no_wait, return_exceptions=True)
    third = free_port()
    with valkey(folder, port=port) as promoted, valkey(folder.parent / "c", port=third) as replica:
        async with Link(replica.url) as following:
            await following.command("REPLICAOF", "127.0.0.1", promoted.port)
            await eventually(lambda: linked(following), lambda up: up)
            await open_books(cold, redis, vault, term=3)
            await eventually(lambda: unsettled(settler), lambda count: count == 0, seconds=90)
            assert await drained(cold, redis) == 10


async def test_a_claim_is_posted_once_if_mongodb_does_not_know_it(
    cold: ColdBook, redis: Link, vault: Vault, tmp_path: Path
) -> None:
    await open_books(cold, redis, vault)
    never, known, abandoned = [await admitted(redis) for _ in range(3)]
    async with settling(redis, tmp_path) as settler:
        settler.put(known)
    await hot.progress(redis, PLACE, abandoned.rid, used_nanos=400)
    await redis.command("ZADD", keyspace.due(PLACE.partition), 1, abandoned.rid)
    swept = await hot.sweep(redis, PLACE, abandoned.rid)
    assert swept is not None
    await redis.command("DEL", keyspace.hold(PLACE.partition, never.rid))
    await redis.command("ZREM", keyspace.due(PLACE.partition), never.rid)
    account = keyspace.account(PLACE.partition, PLACE.account)
    await plant(redis, account, "held", -1_000_000)
    await plant(redis, account, "avail", 1_000_000)
    await plant(redis, account, "live", -1)
    await moved(cold, redis)
    # An hour passes: Redis has forgotten them all.
    for settlement in (known, abandoned):
        await redis.command("DEL", keyspace.hold(PLACE.partition, settlement.rid))
    async with settling(redis, tmp_path) as settler:
        for settlement in (never, known, abandoned):
            old = Settlement(
                settlement.rid, *PLACE, cost_nanos=1_000, tokens=None, admitted_us=1_000_000, facts=settlement.facts
            )
            settler.put(old)
    assert await redis.command("XLEN", keyspace.claims(PLACE.partition)) == 3
    assert await claims.judge(cold, redis) == 2
    assert await claims.judge(cold, redis) == 0
    await moved(cold, redis)
    ends = {(e["request_id"], e["end"]): int(e["charge_nanos"]) async for e in cold.usage.find()}
    assert ends == {
        (never.rid, "orphan"): 1_000,
        (known.rid, "settled"): 1_000,
        (abandoned.rid, "abandoned"): 400,
        (abandoned.rid, "late"): 600,
    }
    assert (await audit(cold, redis)).spent_nanos == 3_000


class Refusing:
    """A link on which the first claims fail, in these ways."""

    def __init__(self, redis: Link, failures: list[Exception]) -> None:
        self.run = redis.run
        self.server_of = redis.server_of
        self.failures = failures
        self._redis = redis

    def command(self, *words: Any, **at: Any) -> asyncio.Future[Any]:
        if words[0] != "XADD" or not self.failures:
            return self._redis.command(*words, **at)
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        failed.set_exception(self.failures.pop())
        return failed


async def test_a_claim_is_put_down_again_until_redis_takes_it(
    cold: ColdBook, redis: Link, vault: Vault, tmp_path: Path
) -> None:
    """Also after an error reply (READONLY): a charge is never given up for one."""
    await open_books(cold, redis, vault)
    told = await admitted(redis)
    await redis.command("DEL", keyspace.hold(PLACE.partition, told.rid))
    refusing: Any = Refusing(redis, [ResponseError("READONLY"), StoreUnavailable("it is gone")])
    async with settling(refusing, tmp_path) as settler:
        late = Settlement(told.rid, *PLACE, cost_nanos=1_000, tokens=None, admitted_us=1_000_000, facts=told.facts)
        settler.put(late)
        await wait_for_the_end(settler)
    assert (refusing.failures, await redis.command("XLEN", keyspace.claims(PLACE.partition))) == ([], 1)
