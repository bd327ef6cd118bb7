"""From stream to MongoDB: read a batch, write it, then acknowledge and delete. Nothing third.

At least once in, exactly once kept: `_id` is the request's, a duplicate with the same digest is success, another digest is
a conflict that is parked with both in `dead_events`. Only the lease's holder consumes, under one consumer name, so what a
dead worker had read but not acknowledged is simply read again first.
"""

import asyncio
import time
from typing import Any

from pymongo.errors import BulkWriteError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ledger import events, keyspace, log, metrics
from ledger.cold import DUPLICATE_KEY, ColdBook, Document, now
from ledger.link import Link

BATCH = 500
BLOCK_MS = 500
BRAKE = 100  # unreadable events in one batch: more than bad luck, so stop instead of parking everything
_CONSUMER = "worker"

Entry = tuple[str, bytes, dict[bytes, bytes]]


class BrakePulled(Exception):
    """Too many events of a batch cannot be read: a release that does not fit, not a damaged entry."""


async def prepare(redis: Link) -> None:
    """Make the consumer groups, from the streams' beginnings: `$` would skip what was booked before."""
    made = (
        redis.command("XGROUP", "CREATE", keyspace.usage(p), keyspace.CONSUMER_GROUP, "0", "MKSTREAM")
        for p in keyspace.PARTITIONS
    )
    for result in await asyncio.gather(*made, return_exceptions=True):
        if isinstance(result, ResponseError) and str(result).startswith("BUSYGROUP"):
            continue
        if isinstance(result, BaseException):
            raise result


class Consumer:
    """Moves usage events; `step` is one batch."""

    def __init__(self, cold: ColdBook, link: Link, reader: Redis) -> None:
        self._cold = cold
        self._link = link
        self._reader = reader
        self._resuming = True

    def resume(self) -> None:
        """Begin again with what was read and not acknowledged, by us or by a worker before us."""
        self._resuming = True

    async def step(self) -> int:
        """Move one batch; how many events it had. Waits up to BLOCK_MS when there are none."""
        start = "0" if self._resuming else ">"
        streams: Any = {keyspace.usage(p): start for p in keyspace.PARTITIONS}
        block = None if self._resuming else BLOCK_MS
        raw = await self._reader.xreadgroup(keyspace.CONSUMER_GROUP, _CONSUMER, streams, count=BATCH, block=block)
        entries = _entries(raw)
        if self._resuming and not entries:
            self._resuming = False
        if entries:
            await self._write(entries)
            await self._forget(entries)
            oldest_ms = min(int(entry_id.split(b"-")[0]) for _, entry_id, _ in entries)
            metrics.LAG_SECONDS.set(max(time.time() - oldest_ms / 1000, 0))
        elif not self._resuming:
            metrics.LAG_SECONDS.set(0)
        return len(entries)

    async def _write(self, entries: list[Entry]) -> None:
        documents, dead = [], []
        for entry in entries:
            stream, entry_id, fields = entry
            if not fields:
                continue  # deleted after an earlier write whose acknowledgement was lost
            try:
                documents.append(events.document(_partition(stream), fields))
            except events.Unreadable as error:
                dead.append(_dead(stream, entry_id, fields, str(error)))
        if len(dead) >= BRAKE:
            raise BrakePulled(len(dead))
        if documents:
            dead += await self._insert(documents)
        for document in dead:
            await self._cold.dead_events.update_one({"_id": document["_id"]}, {"$setOnInsert": document}, upsert=True)
            log.get().error("event_parked", code=document["reason"], partition=document["stream"])

    async def _insert(self, documents: list[Document]) -> list[Document]:
        """Write the batch; the conflicts in it. Anything but a duplicate key is raised, and the batch comes again."""
        try:
            await self._cold.usage.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            problems = error.details["writeErrors"]
            if error.details["writeConcernErrors"] or any(p["code"] != DUPLICATE_KEY for p in problems):
                raise
            again = [documents[p["index"]] for p in problems]
            ids = [document["_id"] for document in again]
            kept = {d["_id"]: d["digest"] async for d in self._cold.usage.find({"_id": {"$in": ids}}, {"digest": 1})}
            return [_conflict(d) for d in again if kept.get(d["_id"]) != d["digest"]]
        return []

    async def _forget(self, entries: list[Entry]) -> None:
        """Acknowledge and delete, together per stream: an entry acknowledged but not deleted would stay for ever."""
        by_stream: dict[str, list[bytes]] = {}
        for stream, entry_id, _ in entries:
            by_stream.setdefault(stream, []).append(entry_id)
        replies = []
        for stream, ids in by_stream.items():
            replies += [
                self._link.command("MULTI"),
                self._link.command("XACK", stream, keyspace.CONSUMER_GROUP, *ids),
                self._link.command("XDEL", stream, *ids),
                self._link.command("EXEC"),
            ]
        await asyncio.gather(*replies)


def _entries(raw: Any) -> list[Entry]:
    """RESP2's list or RESP3's map of streams, flattened."""
    pairs = raw.items() if isinstance(raw, dict) else raw or []
    found: list[Entry] = []
    for stream, batches in pairs:
        for batch in batches:
            for entry_id, fields in [batch] if isinstance(batch, tuple) else batch:
                found.append((stream.decode(), entry_id, fields or {}))
    return found


def _partition(stream: str) -> str:
    start = stream.index("{p") + 2
    return stream[start : start + 2]


def _dead(stream: str, entry_id: bytes, fields: dict[bytes, bytes], reason: str) -> Document:
    _id = f"{stream} {entry_id.decode()}"
    raw = {name.decode(errors="replace"): value for name, value in fields.items()}
    return {"_id": _id, "stream": stream, "raw": raw, "reason": reason, "parked_at": now()}


def _conflict(document: Document) -> Document:
    _id = f"conflict {document['_id']} {document['digest']}"
    return {"_id": _id, "stream": document["partition"], "raw": document, "reason": "conflict", "parked_at": now()}
