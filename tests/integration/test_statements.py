"""Statements: a day is sealed, stated once and only then given an end; a worker may die between any two steps."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from bson.int64 import Int64

from ledger import audit, hot, keyspace, rebuild, statements
from ledger.cold import Document, now
from tests.entries import entry, flat
from tests.integration.ledger_books import Ledger, P

MODELS = ("m", "model.with.dots")


CREDITED = 10**9


def day(back: int, *, of: datetime | None = None) -> str:
    return ((of or now()) - timedelta(days=back)).strftime("%Y-%m-%d")


async def post(ledger: Ledger, *days: str, charge: int = 10) -> None:
    """Events through the scripts and the consumer, as if they had been posted on these days."""
    start = int(await ledger.link.command("HGET", keyspace.meta(P), "seq") or 0)
    await ledger.charge(*(f"r{start + i}" for i in range(len(days))), cost=charge)
    await ledger.move()
    for i, dated in enumerate(days):
        noon = datetime.fromisoformat(f"{dated}T12:00:00")
        change = {"day": dated, "at": noon, "model": MODELS[i % 2], "usage": {"output": Int64(3), "service_tier": "x"}}
        await ledger.cold.usage.update_one({"_id": f"r{start + i}"}, {"$set": change})


async def close(ledger: Ledger, *, at: datetime | None = None) -> tuple[list[str], list[tuple[str, str]]]:
    heard: list[tuple[str, str]] = []

    async def opened(partition: str, first: str) -> None:
        heard.append((partition, first))

    done = await statements.close_days(ledger.cold, ledger.link, now=at or now(), partitions=[P], opened=opened)
    return done, heard


async def stated(ledger: Ledger) -> list[Document]:
    return await ledger.cold.statements.find().sort("day", 1).to_list()


async def test_the_days_that_were_missed_are_stated_and_get_an_end(ledger: Ledger) -> None:
    await post(ledger, day(3), day(3), day(3), day(1), day(0))
    at = now()
    assert await close(ledger, at=at) == ([P], [(P, day(0))])
    first, second = await stated(ledger)
    assert first["_id"] == f"acc:{day(3)}"
    assert (first["count"], first["charge_nanos"], first["shortfall_nanos"]) == (3, 30, 0)
    assert (first["first"], first["last"]) == ({"epoch": 1, "seq": 1}, {"epoch": 1, "seq": 3})
    per_model = [(m["model"], m["count"], m["charge_nanos"], m["usage"]) for m in first["per_model"]]
    assert per_model == [("m", 2, 20, {"output": 6}), ("model.with.dots", 1, 10, {"output": 3})]
    assert (second["day"], second["count"]) == (day(1), 1)
    assert (first["previous"], second["previous"]) == ("", first["digest"])
    assert first["digest"] == statements.digest(first)
    kept = {d["_id"]: d.get("purge_at") async for d in ledger.cold.usage.find()}
    assert list(kept.values()) == [at + timedelta(days=90)] * 4 + [None]
    book = await ledger.cold.books.find_one({"_id": f"partition:{P}"})
    assert book is not None
    assert (book["sealed_day"], book["epoch"], book["seq"], "sealing" in book) == (day(1), 1, 5, False)
    assert await close(ledger) == ([P], [])  # nothing is left to do
    assert await stated(ledger) == [first, second]


async def test_the_plan_says_how_long_usage_is_kept(ledger: Ledger) -> None:
    await ledger.cold.plans.insert_one({"_id": "short", "retention_days": 7})
    await ledger.cold.accounts.update_one({"_id": "acc"}, {"$set": {"plan": "short"}})
    await post(ledger, day(1))
    at = now()
    await close(ledger, at=at)
    event = await ledger.cold.usage.find_one()
    assert event is not None
    assert event["purge_at"] == at + timedelta(days=7)


async def test_no_statement_before_mongodb_has_every_event(ledger: Ledger) -> None:
    await post(ledger, day(1), day(1))
    lost = await ledger.cold.usage.find_one_and_delete({"seq": 1})
    assert lost is not None
    assert await close(ledger) == ([], [(P, day(0))])
    assert await stated(ledger) == []
    assert await ledger.cold.usage.count_documents({"purge_at": {"$exists": True}}) == 0
    await ledger.cold.usage.insert_one(lost)
    await post(ledger, day(0))  # what is posted after the seal is not waited for
    await ledger.cold.usage.delete_one({"day": day(0)})
    assert (await close(ledger))[0] == [P]
    assert [s["count"] for s in await stated(ledger)] == [2]


async def test_a_waiting_event_of_the_day_is_waited_for(ledger: Ledger) -> None:
    await post(ledger, day(1))
    await ledger.charge("waits")
    assert (await close(ledger))[0] == []
    await ledger.move()
    assert (await close(ledger))[0] == [P]


class Died(Exception):
    pass


@pytest.mark.parametrize("step", ["statements.insert_many", "usage.bulk_write", "books.update_one"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_dies_anywhere_only_does_it_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    await post(ledger, day(2), day(1))
    name, method = step.split(".")
    collection = getattr(ledger.cold, name)
    real = getattr(collection, method)

    async def dies(*args: Any, **kwargs: Any) -> None:
        if when == "after":
            await real(*args, **kwargs)
        raise Died

    with monkeypatch.context() as patched:
        wrapped = _Wrapped(collection, method, dies)
        patched.setattr(ledger.cold, name, wrapped)
        with pytest.raises(Died):
            await close(ledger)
    ends = await ledger.cold.usage.count_documents({"purge_at": {"$exists": True}})
    assert ends <= await ledger.cold.statements.count_documents({})  # no statement, no deletion
    # Whatever it had come to, a rebuild counts each event once.
    assert await rebuild.spent_by_one(ledger.cold, P, "acc") == 20
    assert (await close(ledger))[0] == [P]
    assert [(s["day"], s["charge_nanos"]) for s in await stated(ledger)] == [(day(2), 10), (day(1), 10)]
    assert await ledger.cold.usage.count_documents({"purge_at": {"$exists": True}}) == 2
    assert await rebuild.spent_by_one(ledger.cold, P, "acc") == 20


class _Wrapped:
    def __init__(self, collection: Any, method: str, instead: Any) -> None:
        self._collection, self._method, self._instead = collection, method, instead

    def __getattr__(self, name: str) -> Any:
        return self._instead if name == self._method else getattr(self._collection, name)


async def test_a_statement_is_never_written_over(ledger: Ledger) -> None:
    await post(ledger, day(1))
    other = {"_id": f"acc:{day(1)}", "account": "acc", "partition": P, "day": day(1), "charge_nanos": 7, "digest": "x"}
    await ledger.cold.statements.insert_one(other)
    for _ in range(2):
        assert (await close(ledger))[0] == []
    assert await stated(ledger) == [other]
    [dead] = await ledger.cold.dead_events.find().to_list()
    assert (dead["reason"], dead["raw"]["charge_nanos"]) == ("statement", 10)
    assert await ledger.cold.usage.count_documents({"purge_at": {"$exists": True}}) == 0


async def test_what_comes_later_belongs_to_the_day_that_is_open(ledger: Ledger) -> None:
    """An event that a lost server had posted reaches the consumer after its day was stated."""
    await post(ledger, day(1))
    consumer = ledger.consumer()
    consumer.open_days[P] = day(0)
    yesterday_us = int((now() - timedelta(days=1)).timestamp()) * 1_000_000
    stray = entry(ledger.facts(), seq=2, rid="stray", spent=10, at=yesterday_us)
    await ledger.link.command("XADD", keyspace.usage(P), "*", *flat(stray))
    await ledger.move(consumer)
    kept = await ledger.cold.usage.find_one({"_id": "stray"})
    assert kept is not None
    assert (kept["day"], kept["at"].strftime("%Y-%m-%d")) == (day(0), day(1))


async def test_a_stray_of_a_stated_day_is_stated_with_the_next(ledger: Ledger) -> None:
    """Written by a worker that had lost its lease: it has no end, and a rebuild counts it all the same."""
    await post(ledger, day(2))
    await close(ledger, at=now() - timedelta(days=1))
    await post(ledger, day(1))
    event = await ledger.cold.usage.find_one()
    assert event is not None
    del event["purge_at"]
    await ledger.cold.usage.insert_one({**event, "_id": "stray", "request_id": "stray", "epoch": 0})
    assert await rebuild.spent_by_one(ledger.cold, P, "acc") == 30
    assert (await close(ledger))[0] == [P]
    assert [(s["day"], s["count"]) for s in await stated(ledger)] == [(day(2), 1), (day(1), 2)]
    assert await rebuild.spent_by_one(ledger.cold, P, "acc") == 30


async def test_debits_are_in_the_statement_and_are_kept(ledger: Ledger) -> None:
    seconds, _ = await ledger.link.command("TIME")
    await post(ledger, day(1))
    event = b'{"account":"acc","kind":"refund","asked_us":1}'
    await hot.debit(ledger.link, P, "acc", "acc:d", amount_nanos=100, event=event, asked_us=int(seconds) * 10**6)
    await ledger.move()
    await ledger.cold.debits.update_one({}, {"$set": {"day": day(1)}})
    await close(ledger)
    (statement,) = await stated(ledger)
    assert (statement["charge_nanos"], statement["debits"], statement["debit_nanos"]) == (10, 1, 100)
    assert statement["last"] == {"epoch": 1, "seq": 2}
    debit = await ledger.cold.debits.find_one()
    assert debit is not None
    assert "purge_at" not in debit
    assert await rebuild.spent_by_one(ledger.cold, P, "acc") == 110
    assert (await audit.audit(ledger.cold, ledger.link)).differences == []


async def test_purged_usage_is_still_spent(ledger: Ledger) -> None:
    await post(ledger, day(2), day(1), day(0))
    await close(ledger)
    await ledger.cold.usage.delete_many({"purge_at": {"$exists": True}})
    assert await rebuild.spent_by_one(ledger.cold, P, "acc") == 30
    assert await rebuild.spent_by_account(ledger.cold, {day(1): [P]}) == {"acc": 30}
