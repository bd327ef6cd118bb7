"""The continuous audit: every minute, what is new in both books against each other, and a slice of what is not.

What an account has spent is mirrored in `books` with the number of the event that said so, and replaced only by a later
one: old mirror + the charges since = what the last event says, and, while nothing newer waits, what Redis says. A mirror
is a check and never an input; an account that fails it is summed up from its events before anyone is alarmed.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from ledger import balances, keyspace, log, metrics, rebuild, reopen, sequence
from ledger.balances import Balance
from ledger.cold import DUPLICATE_KEY, ColdBook, Document
from ledger.link import Caller
from ledger.postings import Posting
from ledger.sequence import START, Point

_A_CALL = 500
_SLICE = 8  # partitions whose every account is looked at in a round: all of them in half an hour


class Auditor:
    """Remembers up to where each partition was checked; `step` is one round."""

    def __init__(self, cold: ColdBook, redis: Caller) -> None:
        self._cold = cold
        self._redis = redis
        self._checked: dict[str, Point] = {}
        self._next = 0
        self.errors: dict[str, int] = {}  # nano-USD by account, of those whose books disagree

    def forget(self) -> None:
        """Another worker led meanwhile, or partitions were reopened: begin where `books` says."""
        self._checked.clear()

    async def step(self, partitions: Sequence[str] = keyspace.PARTITIONS) -> int:
        """One round; how many accounts disagree. Sets `weir_conservation_error_nanos` and `weir_ledger_gaps_total`."""
        await self._adopt_strays()
        if not self._checked:
            async for book in self._cold.books.find({"_id": {"$regex": "^partition:"}}):
                self._checked[book["partition"]] = Point(**book["audited"]) if "audited" in book else START
        suspects = {p: set[str]() for p in partitions}
        for partition, upto in zip(partitions, await self._settled(partitions), strict=True):
            after = self._checked.get(partition, START)
            if upto > after:
                suspects[partition] |= await self._follow(partition, after, upto)
        for partition in self._slice(partitions):
            async for document in self._cold.accounts.find({"partition": partition}, {"_id": 1}):
                suspects[partition].add(document["_id"])
        for account, partition in await self._places([*self.errors]):
            suspects.setdefault(partition, set()).add(account)
        self.errors = {}
        for partition, accounts in suspects.items():
            self.errors |= await self._compare(partition, sorted(accounts))
        metrics.CONSERVATION_ERROR.set(sum(self.errors.values()))
        for account, nanos in self.errors.items():
            log.get().error("books_differ", account=account, count=nanos)
        return len(self.errors)

    async def _adopt_strays(self) -> None:
        """Events beyond the close of their epoch that a worker wrote after it had lost its lease."""
        latest: dict[str, Document] = {}
        async for closed in self._cold.epochs.find().sort([("partition", 1), ("epoch", 1)]):
            latest[closed["partition"]] = closed
        for start in range(0, len(latest), 64):
            some = [*latest.values()][start : start + 64]
            beyond = [
                {"partition": d["partition"], "epoch": d["epoch"], "seq": {"$gt": d["closed_at_seq"]}} for d in some
            ]
            for collection in (self._cold.usage, self._cold.debits):
                for partition in {d["partition"] async for d in collection.find({"$or": beyond}, {"partition": 1})}:
                    await reopen.adopt_beyond(self._cold, self._redis, partition)

    async def _settled(self, partitions: Sequence[str]) -> list[Point]:
        """Per partition, up to where every event has left the stream: MongoDB must have all of those."""
        replies = await asyncio.gather(
            *(
                self._redis.transaction(
                    keyspace.meta(p),
                    ("XRANGE", keyspace.usage(p), "-", "+", "COUNT", 1),
                    ("HMGET", keyspace.meta(p), "epoch", "seq"),
                )
                for p in partitions
            )
        )
        found = []
        for waiting, (epoch, seq) in replies:
            if waiting:
                flat = waiting[0][1]
                fields = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
                first = Posting.read(fields)
                found.append(Point(first.epoch, first.seq - 1))
            else:
                found.append(Point(int(epoch or 0), int(seq or 0)))
        return found

    async def _follow(self, partition: str, after: Point, upto: Point) -> set[str]:
        """Look at the events between two points: count what is missing, move the mirrors on; the accounts to look at."""
        missing = await sequence.missing(self._cold, partition, after=after, upto=upto)
        if missing:
            metrics.GAPS.inc(missing)
            log.get().error("events_missing", partition=partition, count=missing, epoch=upto.epoch, seq=upto.seq)
        accounts: set[str] = set()
        batch: list[Document] = []
        async for row in await self._cold.usage.aggregate(_since(partition, after, upto), allowDiskUse=True):
            accounts.add(row["_id"])
            batch.append(row)
            if len(batch) == _A_CALL:
                await self._mirror(partition, batch)
                batch = []
        await self._mirror(partition, batch)
        audited = {"partition": partition, "audited": upto._asdict()}
        await self._cold.books.update_one({"_id": sequence.book_id(partition)}, {"$set": audited}, upsert=True)
        self._checked[partition] = upto
        return accounts

    async def _mirror(self, partition: str, rows: list[Document]) -> None:
        """Replace mirrors by later ones; what does not add up is only noted, and looked at in `_compare`."""
        writes = []
        for row in rows:
            last = row["last"]
            earlier = [{"epoch": {"$lt": last["epoch"]}}, {"epoch": last["epoch"], "seq": {"$lt": last["seq"]}}]
            mirror = {"of": partition, "epoch": last["epoch"], "seq": last["seq"], "spent_nanos": Int64(last["spent"])}
            writes.append(UpdateOne({"_id": row["_id"], "$or": earlier}, {"$set": mirror}, upsert=True))
        try:
            if writes:
                await self._cold.books.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            if any(problem["code"] != DUPLICATE_KEY for problem in error.details["writeErrors"]):
                raise  # a duplicate says that a later mirror is there

    def _slice(self, partitions: Sequence[str]) -> list[str]:
        chosen = [partitions[(self._next + i) % len(partitions)] for i in range(min(_SLICE, len(partitions)))]
        self._next += len(chosen)
        return chosen

    async def _places(self, accounts: list[str]) -> list[tuple[str, str]]:
        found = self._cold.accounts.find({"_id": {"$in": accounts}}, {"partition": 1})
        return [(d["_id"], d["partition"]) async for d in found]

    async def _compare(self, partition: str, accounts: list[str]) -> dict[str, int]:
        """By how much the books of these accounts disagree; only those that do."""
        wrong: dict[str, int] = {}
        for start in range(0, len(accounts), _A_CALL):
            some = accounts[start : start + _A_CALL]
            mirrors = {d["_id"]: d async for d in self._cold.books.find({"_id": {"$in": some}})}
            credits_ = {d["_id"]: d async for d in self._cold.accounts.find({"_id": {"$in": some}}, _CREDITED)}
            rows = (("HMGET", keyspace.account(partition, a), *_FIELDS) for a in some)
            meta, *found = await self._redis.transaction(
                keyspace.meta(partition), ("HMGET", keyspace.meta(partition), "epoch", "seq"), *rows
            )
            point = Point(int(meta[0] or 0), int(meta[1] or 0))
            for account, row in zip(some, found, strict=True):
                credited, spent, grant = (int(value or 0) for value in row[:3])
                has = Balance.read(row[3])
                off = abs(credited - spent - has.held_nanos - has.available_nanos) + max(-has.available_nanos, 0)
                document = credits_.get(account)
                if document is not None and document["grant_number"] == grant:
                    off += abs(int(document["credited_nanos"]) - credited)
                mirror = mirrors.get(account)
                # A mirror says it all only while nothing newer was posted on the partition.
                if point == self._checked.get(partition) and spent != int(mirror["spent_nanos"] if mirror else 0):
                    off += await self._really(partition, account)
                if off:
                    wrong[account] = off
        return wrong

    async def _really(self, partition: str, account: str) -> int:
        """The same from the events themselves: what Redis says was spent, and what MongoDB adds up to."""
        for _ in range(3):
            before = await self._redis.command("HMGET", keyspace.meta(partition), "epoch", "seq")
            spent = int(await self._redis.command("HGET", keyspace.account(partition, account), "spent") or 0)
            added_up = await rebuild.spent_by_one(self._cold, partition, account)
            if before == await self._redis.command("HMGET", keyspace.meta(partition), "epoch", "seq"):
                return abs(spent - added_up)
        return 0  # too busy to tell; the next round looks again


_FIELDS = ("credited", "spent", "grant", balances.FIELD)
_CREDITED = {"credited_nanos": 1, "grant_number": 1}


def _since(partition: str, after: Point, upto: Point) -> list[dict[str, Any]]:
    """Per account, the last event between two points of a partition and what it says was spent."""
    beyond = [{"epoch": {"$gt": after.epoch}}, {"epoch": after.epoch, "seq": {"$gt": after.seq}}]
    until = [{"epoch": {"$lt": upto.epoch}}, {"epoch": upto.epoch, "seq": {"$lte": upto.seq}}]
    pick: list[dict[str, Any]] = [
        {"$match": {"partition": partition, "$and": [{"$or": beyond}, {"$or": until}]}},
        {"$project": {"account": 1, "epoch": 1, "seq": 1, "spent": "$spent_after_nanos"}},
    ]
    return [
        *pick,
        {"$unionWith": {"coll": "debits", "pipeline": pick}},
        {"$sort": {"epoch": 1, "seq": 1}},
        {"$group": {"_id": "$account", "last": {"$last": {"epoch": "$epoch", "seq": "$seq", "spent": "$spent"}}}},
    ]
