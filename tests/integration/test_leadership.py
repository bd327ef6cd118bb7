"""Two workers: one leads, the other takes over, and what the first still sends is fenced by its term."""

import asyncio

import pytest

from ledger import keyspace, lease, publish, reopen
from ledger.cold import ColdBook
from ledger.connections import client
from ledger.lease import Lease
from ledger.link import Link
from ledger.vault import Vault
from ledger.worker import Worker
from tests.integration.ledger_books import Ledger
from tests.stack import eventually


async def test_one_of_two_leads_and_the_term_grows(cold: ColdBook, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Lease(cold), Lease(cold)
    held = await asyncio.gather(first.hold(), second.hold())
    assert sorted(held) == [False, True]
    leader, other = (first, second) if held[0] else (second, first)
    assert await leader.hold()
    assert leader.term == 1
    assert not await other.hold()
    await leader.release()
    assert await eventually(other.hold, bool)
    assert other.term == 2
    assert not await leader.hold()
    await leader.release()  # not its own any more: nothing happens
    assert not await leader.hold()
    monkeypatch.setattr(lease, "LEASE_MS", 50)
    await other.hold()  # now it ends soon, by MongoDB's clock, without a release
    assert await eventually(leader.hold, bool)
    assert leader.term == 3


async def test_two_workers_one_leads_and_the_other_takes_over(cold: ColdBook, redis_url: str, vault: Vault) -> None:
    await publish.ensure_pepper(cold, vault)
    ready: list[int] = []
    async with Link(redis_url) as one, Link(redis_url) as two:
        readers = [client(redis_url), client(redis_url)]
        workers = [
            Worker(cold, link, reader, on_ready=lambda n=number: ready.append(n))  # type: ignore[misc]
            for number, (link, reader) in enumerate(zip((one, two), readers, strict=True))
        ]
        running = [asyncio.create_task(worker.run()) for worker in workers]

        async def open_by() -> int:
            return len(ready)

        await eventually(open_by, bool)
        [leader] = [number for number, worker in enumerate(workers) if worker._leads.is_set()]
        ledger = Ledger(cold, one, readers[0])
        await ledger.customer()
        await ledger.charge("r1", "r2")
        assert len(await eventually(ledger.kept, lambda kept: len(kept) == 2)) == 2
        workers[leader].stop()
        await running[leader]
        await ledger.charge("r3")
        assert len(await eventually(ledger.kept, lambda kept: len(kept) == 3)) == 3
        assert sorted(ready) == [0, 1]
        await ledger.link.command("FLUSHALL")
        await eventually(ledger.balance, lambda balance: balance["spent"] == 15)
        await eventually(lambda: reopen.closed_partitions(one), lambda closed: not closed)
        await ledger.charge("r4")
        assert len(await eventually(ledger.kept, lambda kept: len(kept) == 4)) == 4
        workers[1 - leader].stop()
        await running[1 - leader]
        for reader in readers:
            await reader.aclose()
        assert (await ledger.audit()).agrees


async def test_a_single_partition_that_closes_is_found_when_its_share_has_its_turn(
    cold: ColdBook, redis_url: str, vault: Vault
) -> None:
    await publish.ensure_pepper(cold, vault)
    ready = asyncio.Event()
    reader = client(redis_url)
    async with Link(redis_url) as link:
        worker = Worker(cold, link, reader, on_ready=ready.set)
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(ready.wait(), 30)
        for partition in ("00", "5a", "ff"):
            await link.command("HSET", keyspace.meta(partition), "server", "another")
        await eventually(lambda: reopen.closed_partitions(link), lambda closed: not closed)
        worker.stop()
        await running
    await reader.aclose()
