"""Both books against each other, to the nano-dollar, per account.

On a running system the two cannot be read at one instant, so an account that differs is read again a few times: a
difference that traffic explains vanishes, one that is real stays.
"""

import asyncio
from typing import Any

import msgspec

from ledger import events, keyspace
from ledger.cold import ColdBook, Document
from ledger.link import Caller

_TRIES = 5
_PAUSE_S = 0.2


class Difference(msgspec.Struct, frozen=True):
    """One thing that does not add up: of which account, what, and both sides (nano-USD or a count)."""

    account: str
    what: str
    redis: int
    expected: int


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

    @property
    def agrees(self) -> bool:
        return not self.differences and not self.missing_events and not self.dead_events


class _Side(msgspec.Struct):
    """What Redis says of one account, and what its holds and waiting events add up to."""

    avail: int = 0
    held: int = 0
    credited: int = 0
    spent: int = 0
    live: int = 0
    holds: int = 0
    hold_nanos: int = 0
    waiting_ids: set[str] = set()
    waiting_nanos: int = 0


async def audit(cold: ColdBook, redis: Caller) -> Report:
    """Compare the books; both must be reachable."""
    accounts = [d async for d in cold.accounts.find({}, {"partition": 1, "credited_nanos": 1})]
    totals = {"credited": 0, "spent": 0, "held": 0, "avail": 0}
    differences: list[Difference] = []
    by_partition: dict[str, list[Document]] = {}
    for document in accounts:
        by_partition.setdefault(document["partition"], []).append(document)
    waiting = missing = 0
    dead = await cold.dead_events.estimated_document_count()
    for partition, documents in by_partition.items():
        sides, found, gaps = await _settled(cold, redis, partition, documents)
        differences += found
        missing += gaps
        dead += (await _all_waiting(redis, partition))[1]
        for side in sides.values():
            for name in totals:
                totals[name] += getattr(side, name)
            waiting += len(side.waiting_ids)
    return Report(
        accounts=len(accounts),
        credited_nanos=totals["credited"],
        spent_nanos=totals["spent"],
        held_nanos=totals["held"],
        available_nanos=totals["avail"],
        events=await cold.usage.estimated_document_count(),
        events_waiting=waiting,
        missing_events=missing,
        dead_events=dead,
        differences=differences,
    )


async def _settled(
    cold: ColdBook, redis: Caller, partition: str, documents: list[Document]
) -> tuple[dict[str, _Side], list[Difference], int]:
    """One partition, read until nothing differs or the tries are used up."""
    for attempt in range(_TRIES):
        sides = await _redis_side(redis, partition, [d["_id"] for d in documents])
        differences = [found for d in documents for found in await _compare(cold, d, sides[d["_id"]])]
        gaps = await _gaps(cold, redis, partition)
        if not differences and not gaps:
            break
        if attempt < _TRIES - 1:
            await asyncio.sleep(_PAUSE_S)
    return sides, differences, gaps


async def _redis_side(redis: Caller, partition: str, ids: list[str]) -> dict[str, _Side]:
    sides = {account: _Side(waiting_ids=set()) for account in ids}
    for event in (await _all_waiting(redis, partition))[0]:
        side = sides.get(event["account"])
        if side is not None:
            side.waiting_ids.add(event["_id"])
            side.waiting_nanos += event["charge_nanos"]
    rids = [rid.decode() for rid in await redis.command("ZRANGE", keyspace.due(partition), 0, -1)]
    holds = await asyncio.gather(
        *(redis.command("HMGET", keyspace.hold(partition, rid), "st", "amt", "who") for rid in rids)
    )
    for state, amount, who in holds:
        side = sides.get(who.decode().split(" ")[0]) if who else None
        if state == b"H" and side is not None:
            side.holds += 1
            side.hold_nanos += int(amount)
    names = ("avail", "held", "credited", "spent", "live")
    rows = await asyncio.gather(*(redis.command("HMGET", keyspace.account(partition, a), *names) for a in ids))
    for account, row in zip(ids, rows, strict=True):
        for name, value in zip(names, row, strict=True):
            setattr(sides[account], name, int(value or 0))
    return sides


async def _all_waiting(redis: Caller, partition: str) -> tuple[list[Document], int]:
    """The events that wait in a partition's stream, and how many entries there cannot be read."""
    raw: Any = await redis.command("XRANGE", keyspace.usage(partition), "-", "+")
    found, unreadable = [], 0
    for _, flat in raw:
        try:
            found.append(events.document(partition, dict(zip(flat[::2], flat[1::2], strict=True))))
        except events.Unreadable:
            unreadable += 1
    return found, unreadable


async def _compare(cold: ColdBook, document: Document, side: _Side) -> list[Difference]:
    account = document["_id"]
    pipeline: list[dict[str, Any]] = [
        {"$match": {"account": account, "_id": {"$nin": sorted(side.waiting_ids)}}},
        {"$group": {"_id": None, "charge": {"$sum": "$charge_nanos"}}},
    ]
    rows = await (await cold.usage.aggregate(pipeline)).to_list()
    spent = int(rows[0]["charge"]) if rows else 0
    checks = {
        "credited": (side.credited, int(document["credited_nanos"])),
        "spent": (side.spent, spent + side.waiting_nanos),
        "held": (side.held, side.hold_nanos),
        "concurrency": (side.live, side.holds),
        "available": (side.avail, side.credited - side.spent - side.held),
    }
    found = [Difference(account, what, *both) for what, both in checks.items() if both[0] != both[1]]
    if side.avail < 0:
        found.append(Difference(account, "available is negative", side.avail, 0))
    return found


async def _gaps(cold: ColdBook, redis: Caller, partition: str) -> int:
    """Sequence numbers of the open epoch that are in neither book; closed epochs against where they were closed."""
    epoch, seq = await redis.command("HMGET", keyspace.meta(partition), "epoch", "seq")
    due = {int(epoch or 0): int(seq or 0)}
    async for closed in cold.epochs.find({"partition": partition}):
        due[closed["epoch"]] = closed["closed_at_seq"]
    have: dict[int, set[int]] = {number: set() for number in due}
    async for event in cold.usage.find({"partition": partition}, {"epoch": 1, "seq": 1}):
        have.setdefault(event["epoch"], set()).add(event["seq"])
    for event in (await _all_waiting(redis, partition))[0]:
        have.setdefault(event["epoch"], set()).add(event["seq"])
    return sum(len(set(range(1, last + 1)) - have[number]) for number, last in due.items())
