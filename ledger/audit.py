"""Both books against each other, to the nano-dollar, per account; and MongoDB's own records against each other.

On a running system the two cannot be read at one instant, so a partition in which something differs is read again a few
times: a difference that traffic explains vanishes, one that is real is there every time.
"""

import asyncio
from typing import Any

import msgspec

from ledger import audit_cold, audit_hot, keyspace, rebuild, sequence
from ledger.audit_cold import Difference
from ledger.audit_hot import Side, Waiting
from ledger.cold import ColdBook, Document
from ledger.link import Caller
from ledger.sequence import Point

__all__ = ["Difference", "Report", "audit"]

_TRIES = 5
_PAUSE_S = 0.2


class Report(msgspec.Struct, frozen=True):
    """What an audit found; the books agree when `differences` is empty and nothing is missing or dead."""

    accounts: int
    credited_nanos: int
    spent_nanos: int
    held_nanos: int
    available_nanos: int
    events: int
    events_waiting: int
    missing_events: int
    dead_events: int
    differences: list[Difference]
    debits: int = 0
    statements: int = 0
    days_recomputed: int = 0

    @property
    def agrees(self) -> bool:
        return not self.differences and not self.missing_events and not self.dead_events


class _Found(msgspec.Struct):
    """One partition: sums over its accounts, and what does not add up."""

    totals: dict[str, int]
    waiting: int
    unreadable: int
    missing: int
    differences: list[Difference]


async def audit(cold: ColdBook, redis: Caller) -> Report:
    """Compare the books; both must be reachable. Holds one partition's accounts in memory, and no list of events."""
    accounts = waiting = unreadable = missing = 0
    totals = dict.fromkeys(("credited", "spent", "held", "avail"), 0)
    differences: list[Difference] = []
    for partition in sorted(await cold.accounts.distinct("partition")):
        where = {"partition": partition}
        documents = await cold.accounts.find(where, {"partition": 1, "credited_nanos": 1}).to_list()
        found = await _settled(cold, redis, partition, documents)
        accounts += len(documents)
        waiting += found.waiting
        unreadable += found.unreadable
        missing += found.missing
        differences += found.differences + await audit_cold.grants(cold, documents)
        for name in totals:
            totals[name] += found.totals[name]
    checked = await audit_cold.statements(cold)
    return Report(
        accounts=accounts,
        credited_nanos=totals["credited"],
        spent_nanos=totals["spent"],
        held_nanos=totals["held"],
        available_nanos=totals["avail"],
        events=await cold.usage.estimated_document_count(),
        events_waiting=waiting,
        missing_events=missing,
        dead_events=await cold.dead_events.estimated_document_count() + unreadable,
        differences=differences + checked.differences,
        debits=await cold.debits.estimated_document_count(),
        statements=checked.statements,
        days_recomputed=checked.days,
    )


async def _settled(cold: ColdBook, redis: Caller, partition: str, documents: list[Document]) -> _Found:
    """One partition, read until nothing differs or the tries are used up; only what differed every time is told."""
    always: set[tuple[str, str]] | None = None
    for attempt in range(_TRIES):
        found = await _once(cold, redis, partition, documents)
        names = {(d.account, d.what) for d in found.differences}
        always = names if always is None else always & names
        if not always and not found.missing:
            break
        if attempt < _TRIES - 1:
            await asyncio.sleep(_PAUSE_S)
    found.differences = [d for d in found.differences if always and (d.account, d.what) in always]
    return found


async def _once(cold: ColdBook, redis: Caller, partition: str, documents: list[Document]) -> _Found:
    book = await cold.books.find_one({"_id": sequence.book_id(partition)}) or {}
    sides = await audit_hot.sides(redis, partition, [document["_id"] for document in documents])
    waiting = await audit_hot.waiting(cold, redis, partition)
    # An event goes from the stream to MongoDB: read in that order, it is seen at least once.
    spent = await rebuild.spent_by_account(cold, {book.get("sealed_day", ""): [partition]})
    differences = [
        difference
        for document in documents
        for difference in _compare(document, sides[document["_id"]], spent.get(document["_id"], 0), waiting)
    ]
    known = {document["_id"] for document in documents}
    differences += [
        Difference(a, "spent by no account", n, 0, "MongoDB") for a, n in spent.items() if a not in known and n
    ]
    totals = {
        name: sum(getattr(side, name) for side in sides.values()) for name in ("credited", "spent", "held", "avail")
    }
    return _Found(
        totals, waiting.count, waiting.unreadable, await _missing(cold, redis, partition, book, waiting), differences
    )


def _compare(document: Document, side: Side, spent: int, waiting: Waiting) -> list[Difference]:
    account = document["_id"]
    checks = {
        "credited": (side.credited, int(document["credited_nanos"])),
        "spent": (side.spent, spent + waiting.nanos.get(account, 0)),
        "held": (side.held, side.hold_nanos),
        "concurrency": (side.live, side.holds),
        "available": (side.avail, side.credited - side.spent - side.held),
    }
    found = [Difference(account, what, *both) for what, both in checks.items() if both[0] != both[1]]
    if side.avail < 0:
        found.append(Difference(account, "available is negative", side.avail, 0))
    return found


async def _missing(cold: ColdBook, redis: Caller, partition: str, book: Any, waiting: Waiting) -> int:
    """Sequence numbers in neither book, after the last sealed day: up to there each was seen before it was stated."""
    epoch, seq = await redis.command("HMGET", keyspace.meta(partition), "epoch", "seq")
    after = Point(book.get("epoch", 0), book.get("seq", 0))
    upto = Point(int(epoch or 0), min(int(seq or 0), waiting.upto.seq))
    if upto.epoch != waiting.upto.epoch:
        return 0  # it was reopened meanwhile; the next try sees it whole
    return max(await sequence.missing(cold, partition, after=after, upto=upto) - waiting.numbers, 0)
