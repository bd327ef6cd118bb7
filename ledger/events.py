"""Usage events: the record of one ended request, from a stream entry to the document that MongoDB keeps."""

import hashlib
from datetime import UTC
from typing import Any

import bson
import msgspec
from bson.errors import BSONError
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from ledger.facts import Facts
from ledger.money import MAX_NANOS
from ledger.postings import Posting, day_of


class Unreadable(Exception):
    """A stream entry that cannot be an event; it is parked with its bytes and this reason, never dropped."""


_decoder = msgspec.json.Decoder(Facts)
_INT64 = ("charge_nanos", "shortfall_nanos", "spent_after_nanos", "quote_nanos", "admitted_us")
_ENDS = ("settled", "voided", "abandoned", "late", "orphan")
# What a charge was for. Not in it: seq, epoch, time and end, which differ when a lost event is posted again.
_CHARGED_FOR = (
    "account", "api_key", "model", "served_model", "provider", "dialect", "endpoint", "price_version",
    "usage", "estimated", "charge_nanos", "shortfall_nanos",
)  # fmt: skip


def document(partition: str, entry: dict[bytes, bytes]) -> dict[str, Any]:
    """The MongoDB document of a stream entry; Unreadable if it is not one of ours."""
    try:
        facts, posting = _decoder.decode(entry[b"event"]), Posting.read(entry)
        at = posting.time()
    except (KeyError, ValueError, OverflowError, OSError, msgspec.MsgspecError) as error:
        raise Unreadable(type(error).__name__) from None
    end, rid, charge, shortfall = posting.end, posting.id, posting.charge_nanos, posting.shortfall_nanos
    if end not in _ENDS or not 0 <= charge <= MAX_NANOS or not 0 <= shortfall <= MAX_NANOS:
        raise Unreadable("a field is out of range")
    fields = msgspec.structs.asdict(facts)
    if end == "abandoned":
        fields["quote_nanos"] = posting.hold_nanos
    fields["free"] = facts.free or posting.free  # an abandoned one's facts were written before admit decided
    fields |= {"epoch": posting.epoch, "seq": posting.seq, "spent_after_nanos": posting.spent_after_nanos}
    fields |= {"charge_nanos": charge, "shortfall_nanos": shortfall}
    digest = _digest(fields)
    for name in _INT64:
        fields[name] = Int64(fields[name])
    return {
        "_id": ids_of(rid)[end == "late"],
        "request_id": rid,
        "end": end,
        "at": at,
        "day": day_of(posting.at_us),
        "partition": partition,
        **fields,
        "digest": digest,
    }


def encoded(document: dict[str, Any]) -> RawBSONDocument:
    """A document as MongoDB takes it; Unreadable if it has what BSON cannot say, so that it does not keep the others out.

    That is a number beyond 64 bits, a name with a NUL, half a surrogate pair.
    """
    try:
        return RawBSONDocument(bson.encode(document))
    except (BSONError, OverflowError, ValueError) as error:
        raise Unreadable(type(error).__name__) from None


def ids_of(rid: str) -> list[str]:
    """The `_id`s that a request's events can have: one for how it ended, one for what came after it was abandoned."""
    return [rid, f"{rid}:late"]


def public(document: dict[str, Any]) -> dict[str, Any]:
    """A document as the admin API shows it (interfaces.md, a usage event)."""
    shown = {name: value for name, value in document.items() if name not in _INTERNAL}
    shown.setdefault("free", False)
    shown["at"] = document["at"].replace(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {name: int(value) if isinstance(value, Int64) else value for name, value in shown.items()}


_INTERNAL = ("_id", "digest", "day", "purge_at", "admitted_us")


def _digest(fields: dict[str, Any]) -> str:
    charged_for = {name: fields[name] for name in _CHARGED_FOR}
    if fields["free"]:  # absent otherwise, so that what was written before there were free requests keeps its digest
        charged_for["free"] = True
    return hashlib.sha256(msgspec.json.encode(charged_for, order="sorted")).hexdigest()
