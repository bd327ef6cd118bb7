"""From stream to MongoDB on real stores: each event once, piece by piece, and nothing unreadable in the way."""

import asyncio
from typing import Any

import pytest
from pymongo.errors import ConnectionFailure

from ledger import consumer, keyspace, worker
from ledger.consumer import BrakePulled, Parked, Row
from tests.entries import changed, entry
from tests.integration.ledger_books import Ledger, P

USAGE = keyspace.usage(P)


async def test_events_are_moved_once_and_then_gone(ledger: Ledger) -> None:
    await ledger.charge("r1", "r2", "r3")
    assert await ledger.move() == 3
    assert [(d["_id"], d["seq"], d["charge_nanos"]) for d in await ledger.kept()] == [
        ("r1", 1, 5),
        ("r2", 2, 5),
        ("r3", 3, 5),
    ]
    assert (await ledger.waiting(), await ledger.dead()) == (0, [])


async def test_a_consumer_that_died_before_its_write_is_followed_by_one_that_reads_again(ledger: Ledger) -> None:
    await ledger.charge("r1", "r2")
    assert len(await ledger.consumer()._wait()) == 2
    assert await ledger.move() == 2
    assert (len(await ledger.kept()), await ledger.waiting()) == (2, 0)


async def test_a_crash_between_write_and_deletion_books_nothing_twice(ledger: Ledger) -> None:
    await ledger.charge("r1", "r2")
    moving = ledger.consumer()
    await moving._keep(moving._rows(await moving._wait(), []))
    before = await ledger.kept()
    assert (len(before), await ledger.waiting()) == (2, 2)
    assert await ledger.move() == 2
    assert (await ledger.kept(), await ledger.dead(), await ledger.waiting()) == (before, [], 0)


async def test_a_crash_in_the_middle_of_the_deletion_leaves_nothing_behind(ledger: Ledger) -> None:
    await ledger.charge("r1", "r2", "r3")
    moving = ledger.consumer()
    entries = await moving._wait()
    await moving._keep(moving._rows(entries, []))
    await ledger.link.command("XDEL", USAGE, entries[1][1])
    assert await ledger.move() == 2
    assert (len(await ledger.kept()), await ledger.waiting(), await ledger.dead()) == (3, 0, [])


async def test_what_was_written_of_a_long_batch_need_not_come_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed again and again before it has finished a batch gets on all the same."""
    monkeypatch.setattr(consumer, "_PIECE", 2)
    await ledger.charge(*(f"r{n}" for n in range(6)))
    moving = ledger.consumer()
    keep, pieces = moving._keep, 0

    async def dies_in_the_third(rows: list[Row]) -> list[Parked]:
        nonlocal pieces
        pieces += 1
        if pieces == 3:
            raise ConnectionFailure("MongoDB is gone")
        return await keep(rows)

    monkeypatch.setattr(moving, "_keep", dies_in_the_third)
    with pytest.raises(ConnectionFailure):
        await moving.step()
    assert (len(await ledger.kept()), await ledger.waiting()) == (4, 2)
    assert await ledger.move() == 2
    assert (len(await ledger.kept()), await ledger.waiting(), await ledger.dead()) == (6, 0, [])


async def test_a_batch_of_a_backlog_has_few_of_each_stream(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog over all partitions was once read in one piece, and a worker that died within a second never got on."""
    monkeypatch.setattr(consumer, "_OF_A_BACKLOG", 8)
    for partition, count in (("00", 5), ("01", 5), ("02", 5), ("03", 13)):
        for seq in range(count):
            made = entry(ledger.facts(), seq=seq + 1, rid=f"{partition}-{seq}")
            await ledger.reader.xadd(keyspace.usage(partition), made)  # type: ignore[arg-type]
    moving = ledger.consumer()
    assert [await moving.step() for _ in range(5)] == [8, 8, 5, 7, 0]
    assert len(await ledger.kept()) == 28


async def test_an_account_that_is_busy_is_caught_up_with(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of an account is in one stream. At 200 a batch and ten batches a second, one that made 5,000 requests a second was
    never caught up with.
    """
    busy = worker.Worker(ledger.cold, ledger.link, ledger.reader, on_ready=lambda: None)
    moving = busy._consumer
    assert await moving.step() == 0
    monkeypatch.setattr(busy, "_is_open", _open)
    monkeypatch.setattr(worker, "_GATHER_S", 3600)
    for seq in range(450):
        await ledger.reader.xadd(USAGE, entry(ledger.facts(), seq=seq + 1, rid=f"r{seq}"))  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        await busy._move_events()  # it knew of no backlog, found more than it asked for, and does not wait for more
    assert (await ledger.waiting(), moving.behind) == (250, True)
    assert await moving.step() == 250
    assert (await ledger.waiting(), moving.behind) == (0, False)


async def _open() -> bool:
    return True


async def test_after_a_batch_that_failed_the_backlog_is_read_in_parts(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB was away for a while: all that waits by then is not read in one piece, either."""
    monkeypatch.setattr(consumer, "_OF_A_BACKLOG", 4)
    moving = ledger.consumer()
    assert await moving.step() == 0
    await ledger.charge(*(f"r{n}" for n in range(6)))
    keep = moving._keep

    async def fails(rows: list[Row]) -> list[Parked]:
        raise ConnectionFailure(f"MongoDB is gone, with {len(rows)}")

    monkeypatch.setattr(moving, "_keep", fails)
    with pytest.raises(ConnectionFailure, match="with 6"):
        await moving.step()
    with pytest.raises(ConnectionFailure, match="with 4"):
        await moving.step()
    monkeypatch.setattr(moving, "_keep", keep)
    assert [await moving.step() for _ in range(3)] == [4, 2, 0]


async def test_a_pulled_brake_stays_pulled_by_whatever_is_left(ledger: Ledger) -> None:
    entries = [await ledger.reader.xadd(USAGE, {b"new": b"format"}) for _ in range(consumer.BRAKE)]
    moving = ledger.consumer()
    with pytest.raises(BrakePulled):
        await moving.step()
    await ledger.reader.xdel(USAGE, *entries[1:])
    with pytest.raises(BrakePulled):
        await moving.step()
    assert (await ledger.dead(), await ledger.waiting()) == ([], 1)
    await ledger.reader.xdel(USAGE, entries[0])
    await ledger.charge("r1")
    assert await moving.step() == 1
    await ledger.reader.xadd(USAGE, {b"new": b"format"})
    assert (await moving.step(), len(await ledger.dead())) == (1, 1)


async def test_the_brake_counts_over_the_batches_of_a_backlog(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "_OF_A_BACKLOG", 40)
    for _ in range(consumer.BRAKE):
        await ledger.reader.xadd(USAGE, {b"new": b"format"})
    moving = ledger.consumer()
    assert [await moving.step(), await moving.step()] == [40, 40]
    for _ in range(2):
        with pytest.raises(BrakePulled):
            await moving.step()
    assert (len(await ledger.dead()), await ledger.waiting()) == (80, 20)


async def test_two_workers_at_once_book_nothing_twice(ledger: Ledger) -> None:
    """One that has lost its lease and does not know it yet reads and deletes beside the one that leads."""
    await ledger.charge(*(f"r{n}" for n in range(50)))
    await asyncio.gather(ledger.move(ledger.consumer()), ledger.move(ledger.consumer()))
    assert (len(await ledger.kept()), await ledger.waiting(), await ledger.dead()) == (50, 0, [])
    assert (await ledger.audit()).agrees


async def test_the_same_event_again_is_success_and_another_one_a_conflict(ledger: Ledger) -> None:
    await ledger.charge("r1")
    entries: Any = await ledger.reader.xrange(USAGE)
    [(_, fields)] = entries
    changes: list[dict[str, Any]] = [{}, {"seq": 7, "epoch": 9, "end": "orphan"}, {"charge": 6}]
    for change in changes:
        await ledger.reader.xadd(USAGE, changed(fields, **change))  # type: ignore[arg-type]
    await ledger.move()
    assert [(d["_id"], d["charge_nanos"], d["seq"]) for d in await ledger.kept()] == [("r1", 5, 1)]
    [dead] = await ledger.dead()
    assert (dead["reason"], dead["raw"]["charge_nanos"]) == ("conflict", 6)
    assert await ledger.waiting() == 0


async def test_a_conflict_stays_in_its_stream_until_it_is_parked(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB takes the events of a batch and is gone before the conflict: neither of the two that differ may be lost."""
    await ledger.charge("r1")
    [(_, fields)] = await ledger.reader.xrange(USAGE)  # type: ignore[misc]
    await ledger.move()
    await ledger.reader.xadd(USAGE, changed(fields, charge=6))  # type: ignore[arg-type]
    moving = ledger.consumer()

    async def fails(parked: list[Parked]) -> None:
        raise ConnectionFailure(f"MongoDB is gone, with {len(parked)}")

    with monkeypatch.context() as gone:
        gone.setattr(moving, "_park", fails)
        with pytest.raises(ConnectionFailure, match="with 1"):
            await moving.step()
    assert (await ledger.waiting(), await ledger.dead()) == (1, [])
    assert (await moving.step(), await ledger.waiting(), len(await ledger.dead())) == (1, 0, 1)


async def test_poison_is_parked_with_its_bytes_and_holds_nobody_up(ledger: Ledger) -> None:
    await ledger.charge("r1")
    await ledger.admit("r2")
    await ledger.settle("r2", event=b"\xff\x00 no json")
    await ledger.admit("r3")
    await ledger.settle("r3", event=ledger.facts(usage={"output": 10**30}))
    await ledger.reader.xadd(USAGE, {b"a\x00\xff": b"b"})
    await ledger.charge("r4")
    assert await ledger.move() == 5
    assert [d["_id"] for d in await ledger.kept()] == ["r1", "r4"]
    dead = await ledger.dead()
    assert [d["raw"].get("event") for d in dead] == [b"\xff\x00 no json", ledger.facts(usage={"output": 10**30}), None]
    assert all(d["stream"] == USAGE and d["reason"] for d in dead)
    assert b"b" in dead[2]["raw"].values()
    assert [(d.get("epoch"), d.get("seq")) for d in dead] == [(1, 2), (1, 3), (None, None)]  # so they are no gaps
    report = await ledger.audit()
    assert (report.dead_events, report.agrees) == (3, False)


async def test_a_batch_of_several_pieces_is_written_in_order(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that differ the first is kept, whichever pieces they are in; poison in one does not hold up the next."""
    monkeypatch.setattr(consumer, "_PIECE", 2)
    await ledger.charge("r1", "r2", "r3")
    entries: Any = await ledger.reader.xrange(USAGE)
    await ledger.reader.xadd(USAGE, changed(entries[0][1], charge=6))  # type: ignore[arg-type]
    await ledger.reader.xadd(USAGE, {b"new": b"format"})
    await ledger.charge("r4", "r5")
    assert await ledger.move() == 7
    assert [(d["_id"], d["charge_nanos"]) for d in await ledger.kept()] == [(f"r{n}", 5) for n in range(1, 6)]
    assert [d["reason"] for d in await ledger.dead()] == ["conflict", "KeyError"]


async def test_the_brake_stops_before_anything_of_the_batch_is_parked(ledger: Ledger) -> None:
    for _ in range(consumer.BRAKE):
        await ledger.reader.xadd(USAGE, {b"new": b"format"})
    moving = ledger.consumer()
    with pytest.raises(BrakePulled):
        await moving.step()
    assert (await ledger.waiting(), await ledger.dead(), await ledger.kept()) == (consumer.BRAKE, [], [])
    with pytest.raises(BrakePulled):
        await moving.step()
