"""From stream to MongoDB: read what is there, write it, then delete it. Nothing third.

At least once in, exactly once kept: `_id` is the request's, a duplicate with the same digest is success, another digest is
a conflict that is parked with both in `dead_events`. Only the lease's holder consumes, and an event stays in its stream
until MongoDB has it; so every read begins at the beginning, and what a dead worker had read is simply read again.
"""

import asyncio
import contextlib
import time
from collections import Counter
from typing import Any, NamedTuple

from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError
from redis.asyncio import Redis

from ledger import debits, events, keyspace, log, metrics, reopen
from ledger.cold import DUPLICATE_KEY, ColdBook, Collection, Document, now
from ledger.link import Caller, StoreUnavailable
from ledger.postings import Posting, is_debit

_OF_A_STREAM = 200  # entries that are read at once, where there is no backlog
_OF_A_BACKLOG = 8_000  # the same, over all streams: a worker that dies soon has written the first of them
BLOCK_MS = 500
POLL_S = 0.05
BRAKE = 100  # unreadable events, no batch without one between them: more than bad luck, so stop instead of parking all
_BEGINNING = "0"
_PIECE = 500  # of a batch that MongoDB is given at once

Entry = tuple[str, bytes, dict[bytes, bytes]]


class Row(NamedTuple):
    """An entry, its document, and the bytes of it that MongoDB is given: encoding is a third of what an event costs."""

    entry: Entry
    document: Document
    raw: RawBSONDocument


class Parked(NamedTuple):
    """An entry that is no event to keep, and what `dead_events` has of it."""

    entry: Entry
    document: Document


class BrakePulled(Exception):
    """Too many events in a row of batches cannot be read: a release that does not fit, not a damaged entry."""


class Consumer:
    """Moves usage events; `step` is one batch.

    `reader` waits for all streams in one command, on a connection of its own. A cluster has no such command: without a
    reader every stream is asked in turn, all in one pipeline a node.
    """

    def __init__(self, cold: ColdBook, link: Caller, reader: Redis | None) -> None:
        self._cold = cold
        self._link = link
        self._reader = reader
        self.writing = asyncio.Lock()  # whoever sums up what MongoDB has holds it, so that no batch arrives half-way
        self.behind = True
        """Whether there may be a backlog: a worker begins, or the last batch failed, was large or left something."""
        self._asked = 0  # of each stream, for the last batch
        self._unreadable = 0  # since the last batch that had none
        self.open_days: dict[str, str] = {}  # per partition, the first day that is not sealed

    async def step(self) -> int:
        """Move one batch; how many events it had. Waits up to BLOCK_MS when there are none."""
        entries = await (self._wait() if self._reader is not None else self._poll())
        lag_s = 0.0
        if entries:
            async with self.writing:
                await self._move(entries)
            oldest_ms = min(int(entry_id.split(b"-")[0]) for _, entry_id, _ in entries)
            lag_s = max(time.time() - oldest_ms / 1000, 0)
        self.behind = len(entries) >= _OF_A_BACKLOG // 2 or self._left_some(entries)
        metrics.LAG_SECONDS.set(lag_s)
        return len(entries)

    def _left_some(self, entries: list[Entry]) -> bool:
        """Whether a stream gave all that it was asked for: a busy account alone fills one."""
        if len(entries) < self._asked:
            return False
        return max(Counter([stream for stream, _, _ in entries]).values(), default=0) >= self._asked

    async def _count(self) -> int:
        """How many entries of a stream to ask for: as many as a batch has if one stream alone has a backlog, few of each if
        many have some.
        """
        self._asked = await self._share() if self.behind else _OF_A_STREAM
        self.behind = True  # until this batch has gone well
        return self._asked

    async def _share(self) -> int:
        keys = [keyspace.usage(p) for p in keyspace.PARTITIONS]
        waiting = await asyncio.gather(*(self._link.command("XLEN", key, key=key) for key in keys))
        busy = sum(1 for length in waiting if length)
        return max(_OF_A_BACKLOG // max(busy, 1), 1)

    async def _wait(self) -> list[Entry]:
        assert self._reader is not None
        streams: Any = dict.fromkeys(map(keyspace.usage, keyspace.PARTITIONS), _BEGINNING)
        count = await self._count()
        try:
            return _entries(await self._reader.xread(streams, count=count, block=BLOCK_MS))
        except RuntimeError as error:  # what uvloop calls a write to a connection that was reset meanwhile
            raise StoreUnavailable("the reader's connection is closed") from error

    async def _poll(self) -> list[Entry]:
        keys = [keyspace.usage(p) for p in keyspace.PARTITIONS]
        read = ("XREAD", "COUNT", await self._count(), "STREAMS")
        replies = await asyncio.gather(*(self._link.command(*read, key, _BEGINNING, key=key) for key in keys))
        found: list[Entry] = []
        for reply in replies:
            for stream, batch in reply.items() if isinstance(reply, dict) else reply or []:  # RESP3 or RESP2
                for entry_id, flat in batch:
                    found.append((stream.decode(), entry_id, dict(zip(flat[::2], flat[1::2], strict=True))))
        if not found:
            await asyncio.sleep(POLL_S)
        return found

    async def _move(self, entries: list[Entry]) -> None:
        """Piece by piece: of a long batch that a dying worker leaves unfinished, what was written need not come again."""
        unreadable: list[Parked] = []
        conflicts: list[Parked] = []
        before: list[Row] = []
        writing: asyncio.Task[list[Parked]] | None = None
        try:
            for start in range(0, len(entries), _PIECE):
                rows = self._rows(entries[start : start + _PIECE], unreadable)
                if unreadable and self._unreadable + len(unreadable) >= BRAKE:
                    self._unreadable += len(unreadable)  # it stays pulled until a batch has none
                    raise BrakePulled(self._unreadable)
                if writing is not None:
                    conflicts += await writing
                writing = asyncio.create_task(self._keep(rows))
                await asyncio.sleep(0)  # it leaves now: meanwhile the last piece is deleted and the next is made
                await self._leave(before, conflicts)
                before = rows
        finally:
            if writing is not None:
                conflicts += await writing
        await self._leave(before, conflicts)
        await self._park([*unreadable, *conflicts])
        self._unreadable = self._unreadable + len(unreadable) if unreadable else 0

    async def _leave(self, rows: list[Row], conflicts: list[Parked]) -> None:
        """MongoDB has these, but for the conflicts among them: they go from their streams."""
        await self._adopt_beyond([row.document for row in rows])
        differ = {(parked.entry[0], parked.entry[1]) for parked in conflicts}
        await self._delete([row.entry for row in rows if (row.entry[0], row.entry[1]) not in differ])

    async def _park(self, parked: list[Parked]) -> None:
        for entry, document in parked:
            await self._cold.dead_events.update_one({"_id": document["_id"]}, {"$setOnInsert": document}, upsert=True)
            log.get().error("event_parked", code=document["reason"], partition=document["stream"])
            await self._delete([entry])

    def _rows(self, entries: list[Entry], unreadable: list[Parked]) -> list[Row]:
        """What MongoDB is to keep of these; what cannot be read is added to `unreadable`, with its bytes."""
        rows = []
        for entry in entries:
            stream, entry_id, fields = entry
            try:
                document = self._document(_partition(stream), fields)
                rows.append(Row(entry, document, events.encoded(document)))
            except events.Unreadable as error:
                unreadable.append(Parked(entry, _dead(stream, entry_id, fields, str(error))))
        return rows

    async def _keep(self, rows: list[Row]) -> list[Parked]:
        """Write a piece of a batch; the conflicts in it."""
        usage = [row for row in rows if row.document["end"] != "debit"]
        taken = [row for row in rows if row.document["end"] == "debit"]
        conflicts: list[Parked] = []
        for collection, some in ((self._cold.usage, usage), (self._cold.debits, taken)):
            if some:
                conflicts += await self._insert(collection, some)
        return conflicts

    def _document(self, partition: str, fields: dict[bytes, bytes]) -> Document:
        make = debits.document if is_debit(fields) else events.document
        document = make(partition, fields)
        # What a lost server had posted may come after the day was sealed: it belongs to the day that is open.
        document["day"] = max(document["day"], self.open_days.get(partition, ""))
        return document

    async def _adopt_beyond(self, documents: list[Document]) -> None:
        """An event of an epoch that was closed without it: the server in force does not know its charge yet."""
        epochs: dict[str, set[int]] = {}
        for document in documents:
            epochs.setdefault(document["partition"], set()).add(document["epoch"])
        opened = await asyncio.gather(*(self._link.command("HGET", keyspace.meta(p), "epoch") for p in epochs))
        for (partition, seen), now_open in zip(epochs.items(), opened, strict=True):
            if closed := {epoch for epoch in seen if epoch < int(now_open or 0)}:
                await reopen.adopt_beyond(self._cold, self._link, partition, closed)

    async def _insert(self, collection: Collection, rows: list[Row]) -> list[Parked]:
        """Write the batch; the conflicts in it. Anything but a duplicate key is raised, and the batch comes again."""
        try:
            await collection.insert_many([row.raw for row in rows], ordered=False)
        except BulkWriteError as error:
            problems = error.details["writeErrors"]
            if error.details["writeConcernErrors"] or any(p["code"] != DUPLICATE_KEY for p in problems):
                raise
            again = [rows[p["index"]] for p in problems]
            ids = [row.document["_id"] for row in again]
            places = {"digest": 1, "epoch": 1, "seq": 1}
            kept = {d["_id"]: d async for d in collection.find({"_id": {"$in": ids}}, places)}
            conflicts: list[Parked] = []
            reposted: list[Document] = []
            for entry, document, _ in again:
                there = kept.get(document["_id"])
                if there is None or there["digest"] != document["digest"]:
                    conflicts.append(Parked(entry, _conflict(document)))
                elif _moved(document, there):
                    reposted.append(document)
            await self._note_reposted(reposted)
            return conflicts
        return []

    async def _note_reposted(self, documents: list[Document]) -> None:
        """An event that was lost with a tail and posted again has two numbers: the second must not look like a gap."""
        for d in documents:
            number = {"partition": d["partition"], "epoch": d["epoch"], "seq": d["seq"], "event": d["_id"]}
            _id = f"{d['partition']}:{d['epoch']}:{d['seq']}"
            await self._cold.reposted.update_one({"_id": _id}, {"$setOnInsert": number}, upsert=True)

    async def _delete(self, entries: list[Entry]) -> None:
        """Whatever is not deleted is read, and found in MongoDB, once more."""
        by_stream: dict[str, list[bytes]] = {}
        for stream, entry_id, _ in entries:
            by_stream.setdefault(stream, []).append(entry_id)
        deletions = (self._link.command("XDEL", stream, *ids, key=stream) for stream, ids in by_stream.items())
        await asyncio.gather(*deletions)


def _entries(raw: Any) -> list[Entry]:
    """RESP2's list or RESP3's map of streams, flattened."""
    pairs = raw.items() if isinstance(raw, dict) else raw or []
    found: list[Entry] = []
    for stream, batches in pairs:
        for batch in batches:
            for entry_id, fields in [batch] if isinstance(batch, tuple) else batch:
                found.append((stream.decode(), entry_id, fields))
    return found


def _partition(stream: str) -> str:
    start = stream.index("{p") + 2
    return stream[start : start + 2]


def _dead(stream: str, entry_id: bytes, fields: dict[bytes, bytes], reason: str) -> Document:
    _id = f"{stream} {entry_id.decode()}"
    raw = {name.decode(errors="replace").replace("\0", "\ufffd"): value for name, value in fields.items()}
    place: Document = {"partition": _partition(stream)}
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        posting = Posting.read(fields)
        if min(posting.epoch, posting.seq) >= 0 and max(posting.epoch, posting.seq) < 2**63:
            place |= {"epoch": Int64(posting.epoch), "seq": Int64(posting.seq)}
    return {"_id": _id, "stream": stream, "raw": raw, "reason": reason, "parked_at": now(), **place}


def _conflict(document: Document) -> Document:
    _id = f"conflict {document['_id']} {document['digest']}"
    place = {name: document[name] for name in ("partition", "epoch", "seq")}
    reason = {"stream": document["partition"], "raw": document, "reason": "conflict", "parked_at": now()}
    return {"_id": _id, **reason, **place}


def _moved(document: Document, kept: Document) -> bool:
    return bool((document["epoch"], document["seq"]) != (kept["epoch"], kept["seq"]))
