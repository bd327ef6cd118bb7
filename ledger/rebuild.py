"""Rebuild: refill an emptied Redis from MongoDB, by absolute values, under the leader's term (design.md sections 5 and 7).

What an account has spent is the sum of its statements up to the last sealed day, and of the events after it: usage that
has a statement may have been purged. Nothing is added to what Redis has, so doing it again, whole or in part, is safe.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from ledger import keyspace, publish, statements, takeover
from ledger.cold import ColdBook, Collection, Document, now
from ledger.lines import InUse
from ledger.link import Caller
from ledger.takeover import Record

_A_CALL = 400  # records of one script call: some 6 ms; each call is also one fsync
_IN_FLIGHT = 16
_AT_ONCE = 8  # groups of partitions
_MANY = 100_000  # records
_OF_A_MARK = dict.fromkeys(("request_id", "partition", "end", "charge_nanos", "shortfall_nanos"), 1)
_MARKED_FOR = timedelta(minutes=70)  # an ended request is remembered for an hour; the rest is for clocks that differ

Progress = Callable[[int, int], None]


class Superseded(Exception):
    """Another worker leads now."""


@dataclass(slots=True)
class Restored:
    """How many records were put in place, and the money that they say was spent."""

    accounts: int = 0
    api_keys: int = 0
    marks: int = 0
    capped_lines: int = 0
    credited_nanos: int = 0
    spent_nanos: int = 0


async def restore(
    cold: ColdBook,
    redis: Caller,
    partitions: list[str],
    *,
    term: int,
    progress: Progress = lambda _done, _of: None,
    at: datetime | None = None,
) -> Restored:
    """Refill these partitions, which the leader has taken and which have no epoch yet. `at` is now, UTC without a zone."""
    if not partitions:
        return Restored()
    at = at or now()
    within = {"partition": {"$in": partitions}}
    writer = _Writer(redis, term, progress)
    writer.of = await cold.accounts.count_documents(within) + await cold.api_keys.count_documents(within)
    sealed = await _sealed_days(cold, partitions)
    populated = {*await cold.accounts.distinct("partition", within)}
    # No question to MongoDB grows with the whole installation, nor what is held of it here; a small one asks fewer.
    together = 1 if writer.of > _MANY else 16
    todo = []
    for day, some in sealed.items():
        filled = [p for p in some if p in populated]
        todo += [(filled[i : i + together], day) for i in range(0, len(filled), together)]
    done = Restored()
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(some: list[str], day: str) -> None:
        async with turn:
            await _restore_some(cold, writer, done, some, day, at)

    tasks = [asyncio.create_task(one(some, day)) for some, day in todo]
    try:
        await asyncio.gather(*tasks)
        await writer.finish()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await _note_counted(cold, partitions)
    return done


async def _restore_some(
    cold: ColdBook, writer: "_Writer", done: Restored, partitions: list[str], day: str, at: datetime
) -> None:
    spent = await spent_by_account(cold, {day: partitions})
    free: list[str] = []
    async for document in _of(cold.accounts, partitions):
        mine, credited = spent.get(document["_id"], 0), int(document["credited_nanos"])
        key = keyspace.account(document["partition"], document["_id"])
        policy = _policy(key, document, publish.account_fields(document)).words
        money = (int(document["grant_number"]), str(credited), str(mine))
        await writer.add(document["partition"], Record(key, "money", money + policy))
        done.accounts += 1
        done.credited_nanos += credited
        done.spent_nanos += mine
        if document.get("free_requests"):
            free.append(document["_id"])
    lines: dict[str, tuple[str, str]] = {}
    async for document in _of(cold.api_keys, partitions):
        key = keyspace.api_key(document["partition"], document["_id"])
        await writer.add(document["partition"], _policy(key, document, publish.key_fields(document)))
        done.api_keys += 1
        if {"daily_cap_nanos", "monthly_cap_nanos"} & document["limits"].keys():
            lines[document["_id"]] = (document["partition"], document["line"])
    async for place, record in _counters(cold, lines, at):
        await writer.add(place, record)
        done.capped_lines += 1
    async for place, record in _free_used(cold, free, at):
        await writer.add(place, record)
    async for place, record in _marks(cold, partitions, at):
        await writer.add(place, record)
        done.marks += 1


async def spent_by_account(cold: ColdBook, sealed: dict[str, list[str]]) -> dict[str, int]:
    """What each account has spent, in nano-USD; `sealed` has the partitions by the last day that was sealed there ('')."""
    spent: dict[str, int] = defaultdict(int)
    for day, partitions in sealed.items():
        within = {"partition": {"$in": partitions}}
        sources: list[tuple[Collection, Document]] = [
            (cold.usage, {**within, "day": {"$gt": day}}),
            (cold.debits, within),  # never purged, so the statements' sums are not needed
        ]
        if day:
            sources += [
                (cold.statements, {**within, "day": {"$lte": day}}),
                (cold.usage, statements.strays({"$in": partitions}, day)),
            ]
        for collection, match in sources:
            pipeline: list[dict[str, Any]] = [
                {"$match": match},
                {"$group": {"_id": "$account", "charge": {"$sum": "$charge_nanos"}}},
            ]
            async for row in await collection.aggregate(pipeline, allowDiskUse=True, batchSize=10_000):
                spent[row["_id"]] += int(row["charge"])
    return spent


async def spent_by_one(cold: ColdBook, partition: str, account: str) -> int:
    """The same of one account."""
    (sealed,) = await _sealed_days(cold, [partition])
    within = {"account": account}
    sources: list[tuple[Collection, Document]] = [
        (cold.usage, {**within, "day": {"$gt": sealed}}),
        (cold.debits, within),
    ]
    if sealed:
        sources.append((cold.statements, {**within, "day": {"$lte": sealed}}))
        sources.append((cold.usage, {**within, **statements.strays(partition, sealed)}))
    spent = 0
    for collection, match in sources:
        pipeline: list[dict[str, Any]] = [
            {"$match": match},
            {"$group": {"_id": None, "charge": {"$sum": "$charge_nanos"}}},
        ]
        spent += sum([int(row["charge"]) async for row in await collection.aggregate(pipeline)])
    return spent


async def _sealed_days(cold: ColdBook, partitions: list[str]) -> dict[str, list[str]]:
    days = dict.fromkeys(partitions, "")
    async for book in cold.books.find({"_id": {"$regex": "^partition:"}}):
        if book["partition"] in days:
            days[book["partition"]] = book.get("sealed_day", "")
    by_day: dict[str, list[str]] = defaultdict(list)
    for partition, day in days.items():
        by_day[day].append(partition)
    return by_day


def _of(collection: Collection, partitions: list[str]) -> Any:
    return collection.find({"partition": {"$in": partitions}}).batch_size(5_000)


def _policy(key: str, document: Document, fields: dict[str, str]) -> Record:
    words = [word for name, value in fields.items() if value for word in (name, value)]
    return Record(key, "policy", (int(document["version"]), *words))


async def _counters(
    cold: ColdBook, lines: dict[str, tuple[str, str]], at: datetime
) -> AsyncIterator[tuple[str, Record]]:
    """What capped lines spent in the current UTC day and month; `lines` has (partition, line) by key id."""
    if not lines:
        return
    today, month = at.strftime("%Y-%m-%d"), at.strftime("%Y-%m-01")
    sums: dict[tuple[str, str], list[int]] = {place: [0, 0] for place in lines.values()}
    in_month = {"partition": {"$in": sorted({p for p, _ in sums})}, "day": {"$gte": month}}
    pipeline: list[dict[str, Any]] = [
        {"$match": {**in_month, "api_key": {"$in": [*lines]}}},
        {
            "$group": {
                "_id": {"key": "$api_key", "today": {"$gte": ["$day", today]}},
                "charge": {"$sum": "$charge_nanos"},
            }
        },
    ]
    async for row in await cold.usage.aggregate(pipeline, allowDiskUse=True):
        pair = sums[lines[row["_id"]["key"]]]
        pair[1] += int(row["charge"])
        if row["_id"]["today"]:
            pair[0] += int(row["charge"])
    day, months = (at.date() - date(1970, 1, 1)).days, months_of(at.date())
    for (partition, line), (of_day, of_month) in sums.items():
        used = InUse(day=day, spent_in_day=of_day, month=months, spent_in_month=of_month)
        yield partition, Record(keyspace.line(partition, line), "line", (used.record(),))


async def _free_used(cold: ColdBook, accounts: list[str], at: datetime) -> AsyncIterator[tuple[str, Record]]:
    """How many free requests of the current UTC month these accounts have used, by the events that are kept."""
    if not accounts:
        return
    since = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    ends = {"$nin": ["voided", "late"]}  # a void gave it back, and what is late was counted when it was abandoned
    pipeline: list[dict[str, Any]] = [
        {"$match": {"account": {"$in": accounts}, "at": {"$gte": since}, "free": True, "end": ends}},
        {"$group": {"_id": {"partition": "$partition", "account": "$account"}, "used": {"$sum": 1}}},
    ]
    async for row in await cold.usage.aggregate(pipeline, allowDiskUse=True):
        partition, account = row["_id"]["partition"], row["_id"]["account"]
        words = ("fmonth", months_of(at.date()), "fused", int(row["used"]))
        yield partition, Record(keyspace.account(partition, account), "counters", words)


def months_of(day: date) -> int:
    """Months since March of year 0, as `prelude_limits.lua` numbers them."""
    return (day.year - (day.month < 3)) * 12 + (day.month + 9) % 12


async def _marks(cold: ColdBook, partitions: list[str], at: datetime) -> AsyncIterator[tuple[str, Record]]:
    """Requests that ended within the hour: a settle that is sent again is a repeat, and not an orphan."""
    since = at - _MARKED_FOR
    young = {"partition": {"$in": partitions}, "day": {"$gte": since.strftime("%Y-%m-%d")}, "at": {"$gte": since}}
    abandoned: dict[str, Document] = {}
    late: list[Document] = []
    # Grouping them by request, which MongoDB could do, costs it more than all the rest: nearly each is alone.
    async for event in cold.usage.find(young, _OF_A_MARK).batch_size(5_000):
        if event["end"] == "abandoned":
            abandoned[event["request_id"]] = event
        elif event["end"] == "late":
            late.append(event)
        else:
            yield event["partition"], _mark("S", event)
    for event in late:
        rid = event["request_id"]
        first = abandoned.pop(rid, None) or await cold.usage.find_one({"_id": rid}) or {}
        yield event["partition"], _mark("S", event, first)
    for event in abandoned.values():
        yield event["partition"], _mark("X", event)
    async for debit in cold.debits.find(young):
        words = ("S", int(debit["charge_nanos"]), 0)
        yield debit["partition"], Record(keyspace.hold(debit["partition"], debit["_id"]), "mark", words)


def _mark(state: str, *events: Document) -> Record:
    """How a request ended; the sums over its events, of which an abandoned one may have two."""
    place = keyspace.hold(events[0]["partition"], events[0]["request_id"])
    charge, short = (sum(int(e.get(name, 0)) for e in events) for name in ("charge_nanos", "shortfall_nanos"))
    return Record(place, "mark", (state, charge, short))


async def _note_counted(cold: ColdBook, partitions: list[str]) -> None:
    """The sums have every event, also those beyond an epoch's close: `adopt_beyond` must not take them again.

    MongoDB joins by its index: a question an epoch would make each rebuild slower than the one before it.
    """
    same_epoch = {"$and": [{"$eq": ["$partition", "$$partition"]}, {"$eq": ["$epoch", "$$epoch"]}]}
    later: list[dict[str, Any]] = [
        {"$match": {"$expr": {"$and": [same_epoch, {"$gt": ["$seq", "$$closed_at_seq"]}]}}},
        {"$project": {"_id": 0, "seq": 1}},
    ]
    of_epoch = {name: f"${name}" for name in ("partition", "epoch", "closed_at_seq")}
    for collection in (cold.usage, cold.debits):
        pipeline: list[dict[str, Any]] = [
            {"$match": {"partition": {"$in": partitions}}},
            {"$lookup": {"from": collection.name, "let": of_epoch, "pipeline": later, "as": "beyond"}},
            {"$match": {"beyond": {"$ne": []}}},
        ]
        async for closed in await cold.epochs.aggregate(pipeline, allowDiskUse=True):
            seqs = [event["seq"] for event in closed["beyond"]]
            await cold.epochs.update_one({"_id": closed["_id"]}, {"$addToSet": {"adopted": {"$each": seqs}}})


class _Writer:
    """Collects records per partition and keeps a few calls on the way."""

    def __init__(self, redis: Caller, term: int, progress: Progress) -> None:
        self._redis = redis
        self._term = term
        self._progress = progress
        self._waiting: dict[str, list[Record]] = defaultdict(list)
        self._calls: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_IN_FLIGHT)
        self._failed: BaseException | None = None
        self._done = 0
        self.of = 0

    async def add(self, partition: str, *records: Record) -> None:
        waiting = self._waiting[partition]
        waiting += records
        if len(waiting) >= _A_CALL:
            await self._send(partition)

    async def finish(self) -> None:
        """Send the rest and wait for all answers; Superseded, or what the server raised."""
        for partition in [*self._waiting]:
            await self._send(partition)
        await asyncio.gather(*self._calls)
        if self._failed is not None:
            raise self._failed
        self._progress(self.of, self.of)

    async def _send(self, partition: str) -> None:
        records = self._waiting.pop(partition, [])
        if not records:
            return
        await self._room.acquire()
        if self._failed is not None:
            self._room.release()
            raise self._failed
        call = asyncio.create_task(self._call(partition, records))
        self._calls.add(call)
        call.add_done_callback(self._answered)

    def _answered(self, call: asyncio.Task[None]) -> None:
        self._room.release()
        error = None if call.cancelled() else call.exception()
        if error is None:
            self._calls.discard(call)
        else:
            self._failed = error

    async def _call(self, partition: str, records: list[Record]) -> None:
        if await takeover.restore(self._redis, partition, records, term=self._term) != "OK":
            raise Superseded("TERM")
        self._done += sum(record.kind in ("money", "policy") for record in records)
        self._progress(min(self._done, self.of), self.of)
