"""Statements: an account's day, written once when the day is sealed; only then may the day's usage be purged.

For each partition: `seal` (nothing is posted into the day any more), wait until MongoDB has every event up to there, write
the statements, give the day's usage its `purge_at`, and last note the day as sealed. Every step may be repeated, so a
worker that dies anywhere only does it again. A statement says what the events add up to; nothing is ever added to one.
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from bson.int64 import Int64
from pymongo import UpdateMany
from pymongo.errors import BulkWriteError

from ledger import hot, log, sequence
from ledger.cold import DUPLICATE_KEY, ColdBook, Document
from ledger.link import Caller
from ledger.sequence import Point

RETENTION_DAYS = 90
_AT_ONCE = 500
_EVENT = {
    "account": 1,
    "model": 1,
    "epoch": 1,
    "seq": 1,
    "charge_nanos": 1,
    "shortfall_nanos": 1,
    "usage": 1,
    "digest": 1,
}
_OUTSIDE = ("_id", "digest", "written_at")  # what a statement's digest leaves out


class Conflict(Exception):
    """A day that was stated before adds up to something else now: parked in `dead_events`, and never overwritten."""


@dataclass
class _Sums:
    charge: int = 0
    shortfall: int = 0
    count: int = 0
    usage: dict[str, int] = field(default_factory=dict)

    def add(self, event: Document) -> None:
        self.charge += event["charge_nanos"]
        self.shortfall += event["shortfall_nanos"]
        self.count += 1
        for bucket, amount in event["usage"].items():
            if isinstance(amount, int):
                self.usage[bucket] = self.usage.get(bucket, 0) + amount

    def shown(self) -> Document:
        usage = {bucket: Int64(amount) for bucket, amount in sorted(self.usage.items())}
        money = {"charge_nanos": Int64(self.charge), "shortfall_nanos": Int64(self.shortfall)}
        return {"count": self.count, **money, "usage": usage}


@dataclass
class Tally:
    """One account's day, event by event, in the order of their numbers; holds sums only."""

    account: str
    total: _Sums = field(default_factory=_Sums)
    models: dict[str, _Sums] = field(default_factory=dict)
    debits: int = 0
    debit_nanos: int = 0
    first: Point | None = None
    last: Point | None = None
    _hash: Any = field(default_factory=hashlib.sha256)

    def add(self, event: Document) -> None:
        """A usage event."""
        self.total.add(event)
        self.models.setdefault(event["model"], _Sums()).add(event)
        self._saw(event)

    def add_debit(self, event: Document) -> None:
        """A debit; after the usage events, so that they may be purged and it stays."""
        self.debits += 1
        self.debit_nanos += event["charge_nanos"]
        self._saw(event)

    def _saw(self, event: Document) -> None:
        point = Point(event["epoch"], event["seq"])
        self.first = min(self.first or point, point)
        self.last = max(self.last or point, point)
        self._hash.update(event["digest"].encode())

    def statement(self, partition: str, day: str, previous: str) -> Document:
        """The document; equal events give equal digests, whenever it is made."""
        assert self.first is not None
        assert self.last is not None
        total = self.total.shown()
        del total["usage"]
        statement: Document = {
            "_id": f"{self.account}:{day}",
            "account": self.account,
            "partition": partition,
            "day": day,
            **total,
            "debits": self.debits,
            "debit_nanos": Int64(self.debit_nanos),
            "per_model": [{"model": name, **sums.shown()} for name, sums in sorted(self.models.items())],
            "first": self.first._asdict(),
            "last": self.last._asdict(),
            "events_digest": self._hash.hexdigest(),
            "previous": previous,
        }
        return {**statement, "digest": digest(statement)}


def digest(statement: Document) -> str:
    """What a statement says, in 64 characters; its neighbour of the next day repeats it."""
    said = {name: value for name, value in statement.items() if name not in _OUTSIDE}
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic", enc_hook=int)).hexdigest()


async def close_days(
    cold: ColdBook, redis: Caller, *, now: datetime, partitions: list[str], opened: Callable[[str, str], Any]
) -> list[str]:
    """Seal and state every day that is over; the partitions that are done up to yesterday.

    `now` is UTC without a zone. `opened(partition, day)` is awaited when a day is the first that may still be posted to.
    """
    yesterday = _day(now - timedelta(days=1))
    books = {
        b["partition"]: b async for b in cold.books.find({"_id": {"$in": [sequence.book_id(p) for p in partitions]}})
    }
    done = []
    for partition in partitions:
        book = books.get(partition, {})
        try:
            if book.get("sealed_day", "") >= yesterday or await _close(cold, redis, partition, book, now, opened):
                done.append(partition)
        except Conflict:
            continue  # alarmed, and for a person; the other partitions go on
    return done


async def _close(
    cold: ColdBook, redis: Caller, partition: str, book: Document, now: datetime, opened: Callable[[str, str], Any]
) -> bool:
    today, yesterday = _day(now), _day(now - timedelta(days=1))
    sealing = book.get("sealing") or {}
    if sealing.get("day", "") < yesterday:
        end_us = round(datetime.fromisoformat(today).replace(tzinfo=UTC).timestamp()) * 1_000_000
        point = await hot.seal(redis, partition, day_end_us=end_us)
        if point is None:
            return False  # the server's clock says that it is not over
        sealing = {"day": yesterday, "epoch": point[0], "seq": point[1]}
        change = {"partition": partition, "sealing": sealing, "floor_us": Int64(end_us)}
        await cold.books.update_one({"_id": sequence.book_id(partition)}, {"$set": change}, upsert=True)
    # Also when an earlier worker sealed it: this one's consumer may not know yet.
    await opened(partition, _day(datetime.fromisoformat(sealing["day"]) + timedelta(days=1)))
    after, upto = Point(book.get("epoch", 0), book.get("seq", 0)), Point(sealing["epoch"], sealing["seq"])
    if await sequence.missing(cold, partition, after=after, upto=upto):
        return False
    sealed = book.get("sealed_day", "")
    for day in await _days(cold, partition, sealed, sealing["day"]):
        await _move_strays(cold, partition, sealed, day)
        await write_day(cold, partition, day, now=now)
    noted = {"sealed_day": sealing["day"], "epoch": sealing["epoch"], "seq": sealing["seq"]}
    await cold.books.update_one(
        {"_id": sequence.book_id(partition), "sealing.day": sealing["day"]},
        {"$set": noted, "$unset": {"sealing": ""}},
    )
    return bool(sealing["day"] >= yesterday)


async def _days(cold: ColdBook, partition: str, sealed: str, last: str) -> list[str]:
    """The days after `sealed` up to `last` in which something was posted: also those that were missed."""
    between = {"partition": partition, "day": {"$gt": sealed, "$lte": last}}
    return sorted({*await cold.usage.distinct("day", between), *await cold.debits.distinct("day", between)})


def strays(partition: Any, sealed: str) -> Document:
    """Usage of a sealed day that came after its statements: without `purge_at`, so in none of them."""
    before = _day(datetime.fromisoformat(sealed) - timedelta(days=1)) if sealed else ""
    return {"partition": partition, "day": {"$gte": before, "$lte": sealed}, "purge_at": None}


async def _move_strays(cold: ColdBook, partition: str, sealed: str, day: str) -> None:
    """It belongs to the day that it came in. Only a worker that had lost its lease unnoticed can write such an event."""
    if sealed:
        await cold.usage.update_many(strays(partition, sealed), {"$set": {"day": day}})


async def write_day(cold: ColdBook, partition: str, day: str, *, now: datetime) -> int:
    """Write a sealed day's statements and give its usage its end; how many. Conflict if one was stated otherwise."""
    written, batch = 0, []
    async for tally in tallies(cold, partition, day):
        batch.append(tally)
        if len(batch) == _AT_ONCE:
            written += await _write(cold, partition, day, batch, now)
            batch = []
    return written + (await _write(cold, partition, day, batch, now) if batch else 0)


async def tallies(cold: ColdBook, partition: str, day: str) -> AsyncIterator[Tally]:
    """Each account's day, one account in memory at a time; the index has the events in this order."""
    of_day = {"partition": partition, "day": day}
    order = [("account", 1), ("epoch", 1), ("seq", 1)]
    taken: dict[str, list[Document]] = {}
    async for debit in cold.debits.find(of_day).sort(order):
        taken.setdefault(debit["account"], []).append(debit)

    def finished(tally: Tally) -> Tally:
        for debit in taken.pop(tally.account, ()):
            tally.add_debit(debit)
        return tally

    current: Tally | None = None
    async for event in cold.usage.find(of_day, _EVENT).sort(order).batch_size(2_000):
        if current is None or current.account != event["account"]:
            if current is not None:
                yield finished(current)
            current = Tally(event["account"])
        current.add(event)
    if current is not None:
        yield finished(current)
    for account in sorted(taken):
        yield finished(Tally(account))


async def _write(cold: ColdBook, partition: str, day: str, batch: list[Tally], now: datetime) -> int:
    accounts = [tally.account for tally in batch]
    previous = await _previous(cold, accounts, day)
    documents = [tally.statement(partition, day, previous.get(tally.account, "")) for tally in batch]
    await _insert(cold, [{**document, "written_at": now} for document in documents])
    # On a majority's disks now; before that, no usage may get an end.
    retention = await _retention(cold, accounts)
    ends = [
        UpdateMany(
            {"partition": partition, "day": day, "account": account, "purge_at": None},
            {"$set": {"purge_at": now + timedelta(days=retention.get(account, RETENTION_DAYS))}},
        )
        for account in accounts
    ]
    await cold.usage.bulk_write(ends, ordered=False)
    return len(documents)


async def _insert(cold: ColdBook, documents: list[Document]) -> None:
    try:
        await cold.statements.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        problems = error.details["writeErrors"]
        if error.details["writeConcernErrors"] or any(p["code"] != DUPLICATE_KEY for p in problems):
            raise
        again = {documents[p["index"]]["_id"]: documents[p["index"]] for p in problems}
        kept = {d["_id"]: d["digest"] async for d in cold.statements.find({"_id": {"$in": [*again]}}, {"digest": 1})}
        others = [document for _id, document in again.items() if kept.get(_id) != document["digest"]]
        for document in others:
            _id = f"conflict statement {document['_id']} {document['digest']}"
            dead = {
                "partition": document["partition"],
                "raw": document,
                "reason": "statement",
                "parked_at": document["written_at"],
            }
            await cold.dead_events.update_one({"_id": _id}, {"$setOnInsert": dead}, upsert=True)
            log.get().error("statement_differs", account=document["account"], partition=document["partition"])
        if others:
            raise Conflict from None


async def _previous(cold: ColdBook, accounts: list[str], day: str) -> dict[str, str]:
    """The digest of each account's statement before this day: a chain in which none can be changed or left out."""
    pipeline: list[dict[str, Any]] = [
        {"$match": {"account": {"$in": accounts}, "day": {"$lt": day}}},
        {"$sort": {"account": -1, "day": -1}},
        {"$group": {"_id": "$account", "digest": {"$first": "$digest"}}},
    ]
    return {row["_id"]: row["digest"] async for row in await cold.statements.aggregate(pipeline)}


async def _retention(cold: ColdBook, accounts: list[str]) -> dict[str, int]:
    """How many days the usage of each account on a plan is kept."""
    on_plan = {"_id": {"$in": accounts}, "plan": {"$ne": None}}
    plans = {d["_id"]: d["plan"] async for d in cold.accounts.find(on_plan, {"plan": 1})}
    if not plans:
        return {}
    named = {d["_id"]: d async for d in cold.plans.find({"_id": {"$in": [*set(plans.values())]}})}
    return {a: int(named.get(plan, {}).get("retention_days") or RETENTION_DAYS) for a, plan in plans.items()}


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d")
