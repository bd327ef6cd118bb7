"""The gap-free sequence of events: what MongoDB must have between two points of a partition, and how much of it is missing.

Every posting script takes the next `seq` of the partition's open epoch, so a missing event is noticed, not guessed. One
number stands in one of four collections: `usage`, `debits`, `reposted` (the same event under a second number, after a lost
tail) or `dead_events` (known, and a person's business).
"""

from typing import Any, NamedTuple

from ledger.cold import ColdBook

_COLLECTIONS = ("usage", "debits", "reposted", "dead_events")


class Point(NamedTuple):
    """A place in a partition's sequence; (0, 0) is before its first event."""

    epoch: int
    seq: int


START = Point(0, 0)


async def due(cold: ColdBook, partition: str, *, after: Point, upto: Point) -> dict[int, tuple[int, int]]:
    """Per epoch the first and last seq that must exist after one point and up to another."""
    between = {"partition": partition, "epoch": {"$gte": after.epoch, "$lte": upto.epoch}}
    ends = {d["epoch"]: int(d["closed_at_seq"]) async for d in cold.epochs.find(between)}
    ends[upto.epoch] = min(ends.get(upto.epoch, upto.seq), upto.seq)
    spans = {epoch: (after.seq + 1 if epoch == after.epoch else 1, last) for epoch, last in ends.items()}
    return {epoch: span for epoch, span in spans.items() if epoch > 0 and span[1] >= span[0]}


async def missing(cold: ColdBook, partition: str, *, after: Point, upto: Point) -> int:
    """How many sequence numbers after one point and up to another MongoDB does not have."""
    spans = await due(cold, partition, after=after, upto=upto)
    if not spans:
        return 0
    return sum(last - first + 1 for first, last in spans.values()) - await present(cold, partition, spans)


async def present(cold: ColdBook, partition: str, spans: dict[int, tuple[int, int]]) -> int:
    """How many different numbers of these spans MongoDB has; it counts, so nothing of their size comes here."""
    ranges: list[dict[str, Any]] = [
        {"epoch": epoch, "seq": {"$gte": first, "$lte": last}} for epoch, (first, last) in spans.items()
    ]
    pick: list[dict[str, Any]] = [
        {"$match": {"partition": partition, "$or": ranges}},
        {"$project": {"_id": 0, "epoch": 1, "seq": 1}},
    ]
    first, *others = _COLLECTIONS
    unions: list[dict[str, Any]] = [{"$unionWith": {"coll": name, "pipeline": pick}} for name in others]
    distinct: list[dict[str, Any]] = [{"$group": {"_id": {"epoch": "$epoch", "seq": "$seq"}}}, {"$count": "n"}]
    rows = await (await cold.db[first].aggregate([*pick, *unions, *distinct], allowDiskUse=True)).to_list()
    return int(rows[0]["n"]) if rows else 0


async def last_points(cold: ColdBook) -> dict[str, Point]:
    """Per partition, the last point that MongoDB knows of: of an event, a closed epoch or a sealed day."""
    found: dict[str, Point] = {}

    def saw(partition: Any, epoch: Any, seq: Any) -> None:
        if isinstance(partition, str) and epoch is not None:
            found[partition] = max(found.get(partition, START), Point(int(epoch), int(seq or 0)))

    for name in _COLLECTIONS:
        # Sorted against the index, $first is answered by one look-up a partition instead of a scan.
        pipeline: list[dict[str, Any]] = [
            {"$sort": {"partition": -1, "epoch": -1, "seq": -1}},
            {"$group": {"_id": "$partition", "epoch": {"$first": "$epoch"}, "seq": {"$first": "$seq"}}},
        ]
        async for row in await cold.db[name].aggregate(pipeline):
            saw(row["_id"], row["epoch"], row["seq"])
    newest: list[dict[str, Any]] = [
        {"$sort": {"partition": -1, "epoch": -1}},
        {"$group": {"_id": "$partition", "epoch": {"$first": "$epoch"}, "seq": {"$first": "$closed_at_seq"}}},
    ]
    async for closed in await cold.epochs.aggregate(newest):
        saw(closed["_id"], closed["epoch"], closed["seq"])
    async for book in cold.books.find({"_id": {"$regex": "^partition:"}}):
        saw(book["partition"], book.get("epoch"), book.get("seq"))
    return found


def book_id(partition: str) -> str:
    """The `_id` of a partition's document in `books`: up to where its events are in statements."""
    return f"partition:{partition}"
