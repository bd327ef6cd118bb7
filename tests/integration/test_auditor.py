"""The continuous audit, and what `weir audit` finds when one thing in either book was changed behind their backs."""

import random
from datetime import timedelta
from typing import Any

import pytest
from bson.int64 import Int64

from ledger import keyspace, metrics, statements
from ledger.auditor import Auditor
from ledger.cold import now
from tests.hashes import plant
from tests.integration.ledger_books import Ledger, P

ACCOUNT = keyspace.account(P, "acc")


CREDITED = 10**6


@pytest.fixture
def auditor(ledger: Ledger) -> Auditor:
    return Auditor(ledger.cold, ledger.link)


def error_nanos() -> float:
    return float(metrics.CONSERVATION_ERROR._value.get())


def gaps() -> float:
    return float(metrics.GAPS._value.get())


async def mirror(ledger: Ledger) -> Any:
    return await ledger.cold.books.find_one({"_id": "acc"}, {"_id": 0})


async def test_a_mirror_follows_what_was_spent(ledger: Ledger, auditor: Auditor) -> None:
    await ledger.charge("a", "b")
    await ledger.move()
    assert await auditor.step([P]) == 0
    assert await mirror(ledger) == {"of": P, "epoch": 1, "seq": 2, "spent_nanos": 10}
    await ledger.charge("c")  # waits in the stream: nothing to say about it yet
    assert await auditor.step([P]) == 0
    assert (await mirror(ledger))["seq"] == 2
    await ledger.move()
    assert await auditor.step([P]) == 0
    assert await mirror(ledger) == {"of": P, "epoch": 1, "seq": 3, "spent_nanos": 15}
    assert error_nanos() == 0
    again = Auditor(ledger.cold, ledger.link)  # another worker: it goes on from `books`
    assert await again.step([P]) == 0
    assert again._checked[P] == (1, 3)


async def test_a_mirror_is_replaced_only_by_a_later_one(ledger: Ledger, auditor: Auditor) -> None:
    await ledger.charge("a")
    await ledger.move()
    await ledger.cold.books.insert_one({"_id": "acc", "of": P, "epoch": 7, "seq": 1, "spent_nanos": Int64(5)})
    assert await auditor.step([P]) == 0
    assert (await mirror(ledger))["epoch"] == 7


@pytest.mark.parametrize(("field", "off"), [("spent", 3), ("avail", 3), ("credited", 6), ("held", 3)])
async def test_what_was_changed_in_redis_is_found(ledger: Ledger, auditor: Auditor, field: str, off: int) -> None:
    await ledger.charge("a")
    await ledger.move()
    assert await auditor.step([P]) == 0
    await plant(ledger.link, ACCOUNT, field, 3)
    assert await auditor.step([P]) == 1
    assert error_nanos() == (off if field != "spent" else 6)  # the equation, and against MongoDB
    await plant(ledger.link, ACCOUNT, field, -3)
    assert await auditor.step([P]) == 0
    assert error_nanos() == 0


async def test_what_was_changed_in_mongodb_is_found(ledger: Ledger, auditor: Auditor) -> None:
    await ledger.charge("a", "b")
    await ledger.move()
    await auditor.step([P])
    await ledger.cold.books.update_one({"_id": "acc"}, {"$set": {"spent_nanos": Int64(11)}})
    assert await auditor.step([P]) == 0  # a mirror alone alarms nobody: the events say otherwise
    await ledger.cold.usage.update_one({"_id": "a"}, {"$inc": {"charge_nanos": Int64(-1)}})
    assert await auditor.step([P]) == 1
    assert error_nanos() == 1


async def test_a_gap_is_counted_once(ledger: Ledger, auditor: Auditor) -> None:
    await ledger.charge("a", "b", "c")
    await ledger.move()
    await ledger.cold.usage.delete_one({"_id": "b"})
    before = gaps()
    assert await auditor.step([P]) == 0  # the mirror is what the last event says; the gap is what alarms
    assert gaps() == before + 1
    await ledger.charge("d")
    await ledger.move()
    await auditor.step([P])
    assert gaps() == before + 1


async def test_an_event_under_two_numbers_or_dead_is_no_gap(ledger: Ledger, auditor: Auditor) -> None:
    await ledger.charge("a", "b", "c")
    await ledger.move()
    number = {"partition": P, "epoch": 1}
    await ledger.cold.usage.delete_many({"_id": {"$in": ["a", "b"]}})
    await ledger.cold.reposted.insert_one({"_id": "x", **number, "seq": 1, "event": "c"})
    await ledger.cold.dead_events.insert_one({"_id": "y", **number, "seq": 2})
    before = gaps()
    await auditor.step([P])
    assert gaps() == before


async def test_all_partitions_are_looked_at_in_turn(auditor: Auditor) -> None:
    seen = [p for _ in range(32) for p in auditor._slice(keyspace.PARTITIONS)]
    assert sorted(seen) == sorted(keyspace.PARTITIONS)


async def test_the_full_audit_finds_money_that_no_grant_put_in(ledger: Ledger) -> None:
    await ledger.cold.grants.update_one({}, {"$inc": {"amount_nanos": 1}})
    report = await ledger.audit()
    assert [(d.what, d.redis, d.expected, d.where) for d in report.differences] == [
        ("credited", 10**6, 10**6 + 1, "MongoDB")
    ]


async def test_the_full_audit_with_a_backlog_of_many_pages(ledger: Ledger) -> None:
    await ledger.charge(*(f"r{n}" for n in range(40)), cost=1)
    await ledger.move()
    await ledger.charge(*(f"s{n}" for n in range(1_100)), cost=1)
    report = await ledger.audit()
    assert (report.agrees, report.events_waiting, report.missing_events) == (True, 1_100, 0)
    first = (await ledger.link.command("XRANGE", keyspace.usage(P), "-", "+", "COUNT", 1))[0][0]
    await ledger.link.command("XDEL", keyspace.usage(P), first)
    report = await ledger.audit()
    assert (report.agrees, report.missing_events) == (False, 1)


async def stated(ledger: Ledger) -> None:
    """Two stated days with two events each."""

    async def opened(_partition: str, _day: str) -> None:
        pass

    for back in (2, 1):
        await ledger.charge(f"a{back}", f"b{back}")
        await ledger.move()
        day = now() - timedelta(days=back)
        change = {"day": day.strftime("%Y-%m-%d"), "at": day}
        await ledger.cold.usage.update_many({"purge_at": None}, {"$set": change})
        at = now() - timedelta(days=back - 1)
        assert await statements.close_days(ledger.cold, ledger.link, now=at, partitions=[P], opened=opened) == [P]


async def test_the_full_audit_adds_stated_days_up_again(ledger: Ledger) -> None:
    await stated(ledger)
    report = await ledger.audit()
    assert (report.agrees, report.statements, report.days_recomputed) == (True, 2, 2)
    await ledger.cold.usage.delete_many({"_id": {"$in": ["a2", "b2"]}})  # purged
    report = await ledger.audit()
    assert (report.agrees, report.days_recomputed) == (True, 1)


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_changed_in_a_statement_or_its_events_is_found(ledger: Ledger, seed: int) -> None:
    await stated(ledger)
    chance = random.Random(seed)
    if seed % 2:
        event = chance.choice(await ledger.cold.usage.find().to_list())
        field = chance.choice(["charge_nanos", "shortfall_nanos"])
        await ledger.cold.usage.update_one({"_id": event["_id"]}, {"$inc": {field: Int64(1)}})
    else:
        statement = chance.choice(await ledger.cold.statements.find().to_list())
        field = chance.choice(["charge_nanos", "shortfall_nanos", "count", "debit_nanos", "per_model.0.charge_nanos"])
        await ledger.cold.statements.update_one({"_id": statement["_id"]}, {"$inc": {field: 1}})
    assert not (await ledger.audit()).agrees


async def test_a_statement_that_was_taken_out_is_missed(ledger: Ledger) -> None:
    await stated(ledger)
    first = await ledger.cold.statements.find_one(sort=[("day", 1)])
    assert first is not None
    await ledger.cold.usage.delete_many({"day": first["day"]})  # purged, so nothing else would tell
    await ledger.cold.statements.delete_one({"_id": first["_id"]})
    assert not (await ledger.audit()).agrees
