"""Reopening: the steps by which a server that restarted, was promoted or was emptied serves a partition again.

The worker that holds the lease does them (design.md section 5): take the partition; adopt what MongoDB has beyond it;
put grants, policies and config in force; close the old epoch; let settles in; move the leases; open.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.errors import BulkWriteError

from ledger import keyspace, publish, rebuild, rewrite, sequence, takeover
from ledger.cold import DUPLICATE_KEY, ColdBook, Document
from ledger.hot import Place
from ledger.link import Caller
from ledger.sequence import Point
from ledger.survey import survey


class Refused(Exception):
    """The servers do not belong together; a person must look. The message is one line with both ids."""


class Superseded(Exception):
    """Another worker leads now, or the server changed again: begin anew."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What a partition says of itself; `server` is None where there is no meta at all."""

    partition: str
    server: str | None
    state: str
    epoch: int
    seq: int
    config: int
    instance: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one reopening did."""

    partitions: int
    rebuilt: int
    adopted: int
    restored: rebuild.Restored = field(default_factory=rebuild.Restored)


async def closed_partitions(redis: Caller, among: Sequence[str] = keyspace.PARTITIONS) -> list[Meta]:
    """The partitions that the servers at hand may not serve."""
    metas = await survey(lambda p: _meta(redis, p), among)
    groups: dict[object, str] = {}
    for partition in among:
        groups.setdefault(redis.server_of(keyspace.meta(partition)), partition)
    asked = await asyncio.gather(*(server_name(redis, partition) for partition in groups.values()))
    names = dict(zip(groups, asked, strict=True))
    suspects = [
        meta
        for meta in metas.values()
        if meta.state != "open" or meta.server != names.get(redis.server_of(keyspace.meta(meta.partition)))
    ]
    # A slot may have moved between the two questions: ask for each suspect by itself before anything is done to it.
    servers = await asyncio.gather(*(server_name(redis, meta.partition) for meta in suspects))
    return [m for m, server in zip(suspects, servers, strict=True) if m.state != "open" or m.server != server]


async def server_name(redis: Caller, partition: str) -> str:
    """What the server that has this partition calls itself: its replication id."""
    info: bytes = await redis.command("INFO", "replication", key=keyspace.meta(partition))
    return next(
        line.split(b":")[1].strip().decode() for line in info.splitlines() if line.startswith(b"master_replid:")
    )


async def reopen(
    cold: ColdBook,
    redis: Caller,
    closed: list[Meta],
    *,
    term: int,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Report:
    """Open every partition of `closed`; Refused, Superseded, or what the servers raise.

    A partition that never had an epoch on this server is refilled from MongoDB by absolute values (`rebuild`); `progress`
    is told how many records of how many. One that has its books only adopts what it lost.
    """
    single = await cold.singles.find_one({"_id": "instance"})
    assert single is not None
    instance = str(single["id"])
    last = await sequence.last_points(cold)
    for meta in closed:
        _check_identity(meta, instance, empty=not last and await cold.accounts.find_one() is None)
    await rewrite.finish(redis, [meta.partition for meta in closed])
    await asyncio.gather(*(_step(redis, meta.partition, "take", term=term) for meta in closed))
    emptied, kept = [m for m in closed if not m.epoch], [m for m in closed if m.epoch]
    beyond = [meta for meta in kept if last.get(meta.partition, (0, 0)) > (meta.epoch, meta.seq)]
    adopted = sum(await asyncio.gather(*(_adopt_lost(cold, redis, meta) for meta in beyond)))
    try:
        restored = await rebuild.restore(cold, redis, [m.partition for m in emptied], term=term, progress=progress)
    except rebuild.Superseded as superseded:
        raise Superseded(str(superseded)) from None
    await _records(cold, redis, kept)
    config = await publish.config(cold, redis)
    await _close_epochs(cold, closed, last)
    next_epoch = {meta.partition: max(meta.epoch, last.get(meta.partition, (0, 0))[0]) + 1 for meta in closed}
    common = {"term": term, "config": config, "instance": instance}
    floors = {
        b["partition"]: int(b.get("floor_us", 0)) async for b in cold.books.find({"_id": {"$regex": "^partition:"}})
    }
    await asyncio.gather(
        *(
            _step(redis, p, "recover", epoch=epoch, floor_us=floors.get(p, 0), **common)
            for p, epoch in next_epoch.items()
        )
    )
    await asyncio.gather(*(_step(redis, meta.partition, "open", term=term) for meta in closed))
    return Report(len(closed), len(emptied), adopted, restored)


def _check_identity(meta: Meta, instance: str, *, empty: bool) -> None:
    if meta.instance and meta.instance != instance:
        raise Refused(
            f"Redis belongs to installation {meta.instance} and MongoDB to {instance}: one of the URLs is wrong, "
            "or one of the two was restored from elsewhere"
        )
    if meta.seq > 0 and empty:
        raise Refused(f"Redis has booked {meta.seq} events and MongoDB ({instance}) is empty: is WEIR_MONGO_URL right?")


async def _meta(redis: Caller, partition: str) -> Meta:
    names = ("server", "state", "epoch", "seq", "config", "instance")
    raw: list[bytes | None] = await redis.command("HMGET", keyspace.meta(partition), *names)
    server, state, epoch, seq, config, instance = (value.decode() if value else "" for value in raw)
    return Meta(partition, server or None, state, int(epoch or 0), int(seq or 0), int(config or 0), instance)


async def _step(redis: Caller, partition: str, step: Any, **arguments: Any) -> None:
    word = await takeover.reopen(redis, partition, step, **arguments)
    if word != "OK":
        raise Superseded(word)


async def _adopt_lost(cold: ColdBook, redis: Caller, meta: Meta) -> int:
    """Step 2: events that MongoDB has beyond Redis's (epoch, seq), in order, each once."""
    beyond = {
        "partition": meta.partition,
        "$or": [{"epoch": {"$gt": meta.epoch}}, {"epoch": meta.epoch, "seq": {"$gt": meta.seq}}],
    }
    adopted = 0
    for collection in (cold.usage, cold.debits):
        async for event in collection.find(beyond).sort([("epoch", 1), ("seq", 1)]):
            adopted += await _adopt(cold, redis, event)
    return adopted


async def _adopt(cold: ColdBook, redis: Caller, event: Document, *, beyond: bool = False) -> bool:
    """Take over one usage event or debit; whether it was not known."""
    charge, shortfall = event["charge_nanos"], event.get("shortfall_nanos", 0)
    place = Place(event["partition"], event["account"], "", "")
    if event["end"] != "debit":
        line = await cold.api_keys.find_one({"_id": event["api_key"]}, {"line": 1})
        place = place._replace(key=event["api_key"], line=line["line"] if line else event["api_key"])
    if event["end"] == "late":
        first = await cold.usage.find_one({"_id": event["request_id"]})
        charge += first["charge_nanos"] if first else 0
        shortfall += first["shortfall_nanos"] if first else 0
    return await takeover.adopt(
        redis,
        place,
        event["_id"] if event["end"] == "debit" else event["request_id"],
        abandoned=event["end"] == "abandoned",
        charge_nanos=charge,
        shortfall_nanos=shortfall,
        beyond=beyond,
    )


async def adopt_beyond(cold: ColdBook, redis: Caller, partition: str, epochs: set[int] | None = None) -> int:
    """Events that came to MongoDB after their epoch (one of these, or any) had been closed without them: each once.

    A batch that was read from a server before it was replaced is written after it. Fenced unless the partition is open.
    """
    adopted = 0
    which = {} if epochs is None else {"epoch": {"$in": sorted(epochs)}}
    async for closed in cold.epochs.find({"partition": partition, **which}):
        known = {"$gt": closed["closed_at_seq"], "$nin": closed.get("adopted", [])}
        beyond = {"partition": partition, "epoch": closed["epoch"], "seq": known}
        for collection in (cold.usage, cold.debits):
            async for event in collection.find(beyond).sort("seq", 1):
                # Redis remembers a request for an hour, and MongoDB which events were posted a second time.
                if not await cold.reposted.find_one({"event": event["_id"]}):
                    adopted += await _adopt(cold, redis, event, beyond=True)
                await cold.epochs.update_one({"_id": closed["_id"]}, {"$addToSet": {"adopted": event["seq"]}})
    return adopted


async def _records(cold: ColdBook, redis: Caller, closed: list[Meta]) -> None:
    """Step 3: accounts (with what they were credited) and keys, a batch at a time; what is in force already stays."""
    partitions = {"partition": {"$in": [meta.partition for meta in closed]}}
    for collection, put in ((cold.accounts, publish.account), (cold.api_keys, publish.api_key)):
        batch = []
        async for document in collection.find(partitions):
            batch.append(put(redis, document))
            if len(batch) == 1000:
                await asyncio.gather(*batch)
                batch = []
        await asyncio.gather(*batch)


async def _close_epochs(cold: ColdBook, closed: list[Meta], last: dict[str, Point]) -> None:
    """Step 4: record at which seq each old epoch closed, so that a gap in it is known and not guessed."""
    documents = []
    for meta in closed:
        epoch, seq = last.get(meta.partition, (0, 0))
        ends = {
            meta.epoch: meta.seq
        }  # of an emptied server, 0: then the epoch that MongoDB knows is the one that ended
        ends[epoch] = max(ends.get(epoch, 0), seq)
        for number, closed_at in ends.items():
            _id = f"{meta.partition}:{number}"
            if number:
                documents.append({"_id": _id, "partition": meta.partition, "epoch": number, "closed_at_seq": closed_at})
    try:
        if documents:
            await cold.epochs.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        if any(problem["code"] != DUPLICATE_KEY for problem in error.details["writeErrors"]):
            raise  # a duplicate only says that an earlier attempt at this reopening recorded it
