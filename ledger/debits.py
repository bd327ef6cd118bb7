"""Debits: money out (a payout, a correction down). The script decides, the operator's request remembers what it decided.

A request is written first (`debit_requests`), then tried; the event that the script posts travels like a usage event and
is kept in `debits`, for good. Until it is there (`booked`), the worker tries the request again: the script is idempotent
by the request's id, so a payout that was answered with 201 and lost with a server's tail is posted again, once.
"""

import hashlib
from typing import Any

import msgspec
from bson.int64 import Int64

from ledger import hot, keyspace, sequence
from ledger.cold import ColdBook, Document
from ledger.events import Unreadable
from ledger.hot import Debited, Old, Refused
from ledger.link import Caller
from ledger.money import MAX_NANOS
from ledger.postings import Posting, day_of
from ledger.sequence import Point


class DebitFacts(msgspec.Struct, frozen=True):
    """The event's part that is opaque to Redis."""

    account: str
    kind: str
    asked_us: int


_decoder = msgspec.json.Decoder(DebitFacts)


def document(partition: str, entry: dict[bytes, bytes]) -> Document:
    """The document of a stream entry whose end is `debit`; Unreadable if it is not one of ours."""
    try:
        facts, posting = _decoder.decode(entry[b"event"]), Posting.read(entry)
        at = posting.time()
    except (KeyError, ValueError, OverflowError, OSError, msgspec.MsgspecError) as error:
        raise Unreadable(type(error).__name__) from None
    debit_id, charge, spent = posting.id, posting.charge_nanos, posting.spent_after_nanos
    if not 0 < charge <= MAX_NANOS or not 0 <= spent < 2**63 or not facts.asked_us < 2**63:
        raise Unreadable("a field is out of range")
    text = msgspec.json.encode([debit_id, facts.account, facts.kind, charge])
    return {
        "_id": debit_id,
        "end": "debit",
        "at": at,
        "day": day_of(posting.at_us),
        "partition": partition,
        "account": facts.account,
        "kind": facts.kind,
        "asked_us": Int64(facts.asked_us),
        "epoch": posting.epoch,
        "seq": posting.seq,
        "charge_nanos": Int64(charge),
        "spent_after_nanos": Int64(spent),
        "digest": hashlib.sha256(text).hexdigest(),
    }


async def apply(cold: ColdBook, redis: Caller, request: Document) -> str:
    """Try one request: `applied`, `refused` or still `pending`. Raises Fenced or StoreUnavailable: try again later."""
    found = await _try(redis, request, int(request["asked_us"]))
    if isinstance(found, Old):
        if await cold.debits.find_one({"_id": request["_id"]}):
            return await _note(cold, request, {"status": "applied", "booked": True})
        if not await _all_booked(cold, redis, request["partition"]):
            return str(request["status"])  # its event may be on its way
        seconds, micros = await redis.command("TIME", key=keyspace.meta(request["partition"]))
        found = await _try(redis, request, int(seconds) * 1_000_000 + int(micros))
    if isinstance(found, Debited):
        return await _note(cold, request, {"status": "applied"})
    if isinstance(found, Refused) and request["status"] == "pending":
        return await _note(cold, request, {"status": "refused", "booked": True, "details": list(found.details)})
    return str(request["status"])


async def complete(cold: ColdBook, redis: Caller) -> int:
    """Try again what is not in `debits` yet; how many requests are done with now."""
    done = 0
    async for request in cold.debit_requests.find({"booked": False}).limit(1000):
        if await cold.debits.find_one({"_id": request["_id"]}, {"_id": 1}):
            await _note(cold, request, {"status": "applied", "booked": True})
            done += 1
        else:
            done += await apply(cold, redis, request) == "refused"
    return done


async def _try(redis: Caller, request: Document, asked_us: int) -> Debited | Refused | Old:
    facts = DebitFacts(request["account"], request["kind"], int(request["asked_us"]))
    return await hot.debit(
        redis,
        request["partition"],
        request["account"],
        request["_id"],
        amount_nanos=int(request["amount_nanos"]),
        event=msgspec.json.encode(facts),
        asked_us=asked_us,
    )


async def _note(cold: ColdBook, request: Document, change: dict[str, Any]) -> str:
    await cold.debit_requests.update_one({"_id": request["_id"], "booked": False}, {"$set": change})
    return str(change["status"])


async def _all_booked(cold: ColdBook, redis: Caller, partition: str) -> bool:
    """Whether MongoDB has every event that this partition posted so far."""
    epoch, seq = await redis.command("HMGET", keyspace.meta(partition), "epoch", "seq")
    book = await cold.books.find_one({"_id": sequence.book_id(partition)}) or {}
    after = Point(book.get("epoch", 0), book.get("seq", 0))
    return not await sequence.missing(cold, partition, after=after, upto=Point(int(epoch or 0), int(seq or 0)))
