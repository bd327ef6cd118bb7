"""What Redis says of the accounts of one partition, and what its holds and waiting events add up to."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

import msgspec

from ledger import balances, debits, events, holds, keyspace
from ledger.balances import Balance
from ledger.cold import ColdBook, Document
from ledger.link import Caller
from ledger.postings import is_debit
from ledger.sequence import Point

_PAGE = 1_000


class Side(msgspec.Struct):
    """One account in Redis."""

    avail: int = 0
    held: int = 0
    credited: int = 0
    spent: int = 0
    live: int = 0
    holds: int = 0
    hold_nanos: int = 0


class Waiting(msgspec.Struct):
    """Events of a partition that MongoDB does not have yet: how many, the charges by account, their numbers.

    `upto` is how far the partition had posted when they were read.
    """

    upto: Point
    nanos: dict[str, int]
    count: int = 0
    numbers: int = 0
    unreadable: int = 0


async def sides(redis: Caller, partition: str, accounts: list[str]) -> dict[str, Side]:
    """Each account's totals, and its holds one by one."""
    found = {account: Side() for account in accounts}
    names = ("credited", "spent", balances.FIELD)
    for start in range(0, len(accounts), _PAGE):
        some = accounts[start : start + _PAGE]
        rows = await asyncio.gather(*(redis.command("HMGET", keyspace.account(partition, a), *names) for a in some))
        for account, (credited, spent, record) in zip(some, rows, strict=True):
            has = Balance.read(record)
            found[account] = Side(has.available_nanos, has.held_nanos, int(credited or 0), int(spent or 0), has.live)
    rids = [rid.decode() for rid in await redis.command("ZRANGE", keyspace.due(partition), 0, -1)]
    for start in range(0, len(rids), _PAGE):
        some = rids[start : start + _PAGE]
        texts = await asyncio.gather(*(redis.command("GET", keyspace.hold(partition, rid)) for rid in some))
        for hold in map(holds.read, texts):
            side = found.get(hold.account) if hold else None
            if hold is not None and side is not None:
                side.holds += 1
                side.hold_nanos += hold.amount_nanos
    return found


async def waiting(cold: ColdBook, redis: Caller, partition: str) -> Waiting:
    """The stream, a page at a time; what MongoDB has already, and was not deleted yet, does not count."""
    epoch, seq = await redis.command("HMGET", keyspace.meta(partition), "epoch", "seq")
    found = Waiting(Point(int(epoch or 0), int(seq or 0)), defaultdict(int))
    async for page in _pages(redis, partition):
        documents = [d for d in (_document(partition, fields) for fields in page) if d is not None]
        found.unreadable += len(page) - len(documents)
        ids = [document["_id"] for document in documents]
        place = {"epoch": 1, "seq": 1}
        there: dict[str, Document] = {}
        for collection in (cold.usage, cold.debits):
            there |= {d["_id"]: d async for d in collection.find({"_id": {"$in": ids}}, place)}
        for document in documents:
            kept, number = there.get(document["_id"]), Point(document["epoch"], document["seq"])
            if kept is None:
                found.nanos[document["account"]] += int(document["charge_nanos"])
                found.count += 1
            if number <= found.upto and (kept is None or Point(kept["epoch"], kept["seq"]) != number):
                found.numbers += 1
    return found


async def _pages(redis: Caller, partition: str) -> AsyncIterator[list[dict[bytes, bytes]]]:
    start = "-"
    while True:
        raw = await redis.command("XRANGE", keyspace.usage(partition), start, "+", "COUNT", _PAGE)
        if raw:
            yield [f if isinstance(f, dict) else dict(zip(f[::2], f[1::2], strict=True)) for _, f in raw]
        if len(raw) < _PAGE:
            return
        start = f"({raw[-1][0].decode()}"


def _document(partition: str, fields: dict[bytes, bytes]) -> Document | None:
    make = debits.document if is_debit(fields) else events.document
    try:
        document = make(partition, fields)
        events.encoded(document)
    except events.Unreadable:
        return None  # the consumer will park it
    return document
