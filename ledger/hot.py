"""The hot book: one typed function per script that a request or an account needs (`takeover` has those of a worker).

Keys come from `keyspace`, replies are words, money is int nano-USD.

Each raises Fenced when this server may not serve the partition (yet), and StoreUnavailable when Redis did not answer;
after the latter the call may or may not have happened, and asking again with the same id is safe.
"""

import struct
from asyncio import Future
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from ledger import common_metrics, keyspace, scripts
from ledger.frozen import Frozen
from ledger.link import Arg, Caller

LEASE_US: Final = 45_000_000
BACKLOG_BOUND: Final = 1_000_000  # events of a partition that wait for MongoDB; above it nothing new is admitted


class Fenced(Exception):
    """The partition is not open on this server: it is starting, was restarted, promoted or wiped."""


class Unexpected(Exception):
    """A script answered what its header does not list: our bug."""


class Place(NamedTuple):
    """Where an account's request lives: partition, account id, key id, key lineage id."""

    partition: str
    account: str
    key: str
    line: str


class Versions(Frozen, frozen=True):
    """The versions of key, account and config that a decision was made with."""

    key: int
    account: int
    config: int


class Admitted(Frozen, frozen=True):
    """A hold was taken. `choice` indexes the amounts offered; the four `*_us` tell how much of a minute is in use.

    `free`: it is one of the account's free requests of this month; nothing is held and nothing will be charged.
    """

    choice: int
    amount_nanos: int
    at_us: int
    key_requests_us: int
    key_tokens_us: int
    account_requests_us: int
    account_tokens_us: int
    free: bool = False


class Refused(NamedTuple):
    """No hold was taken and nothing was changed. `word` is the script's; `details` as in its header."""

    word: str
    details: tuple[str, ...]


@dataclass(init=False, slots=True)
class Ended:
    """How a request ended: settled, voided, late, orphan, or `repeat` with what was charged the first time.

    `server` is who said so: in a set-up with replicas, an acknowledgement is worth no more than its server.
    """

    end: str
    charge_nanos: int
    shortfall_nanos: int
    seq: int
    server: str = field(compare=False)

    def __init__(self, end: str, charge_nanos: int, shortfall_nanos: int, seq: int, server: str = "") -> None:
        self.end = end
        self.charge_nanos = charge_nanos
        self.shortfall_nanos = shortfall_nanos
        self.seq = seq
        self.server = server


class Debited(NamedTuple):
    """Money was taken out, now or (`repeat`) before; what is available after it."""

    available_nanos: int
    repeat: bool


class Seen(NamedTuple):
    """What `look` saw: the version of the config, and the values of key and account in the order of the script's header."""

    config: int
    key: list[bytes | None]
    account: list[bytes | None]


class Old(NamedTuple):
    """Redis does not know the request and it is too old to be sure: MongoDB must be asked before it is posted."""


class Offer:
    """What admit is asked for: amounts to hold, dearest first, and what the request will use of the token rate."""

    def __init__(
        self,
        amounts_nanos: Sequence[int],
        tokens: int,
        keep_nanos: int | Literal["hold"] = 0,
        facts: bytes = b"{}",
    ) -> None:
        self.amounts_nanos: Final = amounts_nanos
        self.tokens: Final = tokens
        self.keep_nanos: Final = keep_nanos
        self.facts: Final = facts


async def admit(
    redis: Caller, place: Place, rid: str, versions: Versions, offer: Offer, **bounds: int
) -> Admitted | Refused:
    """Check everything and hold the first amount that fits; a repeat of the same rid gets the same answer."""
    return admitted(await admitting(redis, place, rid, versions, offer, **bounds))


def admitting(
    redis: Caller,
    place: Place,
    rid: str,
    versions: Versions,
    offer: Offer,
    *,
    lease_us: int = LEASE_US,
    backlog_bound: int = BACKLOG_BOUND,
) -> Future[Any]:
    """`admit`, sent: `admitted` reads the answer that the future will have."""
    at = _keys_at(place)
    keys = (at.meta, at.key, at.account, at.line, at.holds + rid, at.due, at.usage)
    amounts = offer.amounts_nanos
    numbers = _doubles(5 + len(amounts)).pack(
        versions.key, versions.account, lease_us, offer.tokens, backlog_bound, *amounts
    )
    args: list[Arg] = [rid, versions.config, offer.keep_nanos, at.who, offer.facts, numbers]
    return redis.run(scripts.ADMIT, keys, args)


def admitted(reply: Any) -> Admitted | Refused:
    """What became of an admit."""
    if reply[0] == b"OK":
        choice, amount, at_us, key_requests, key_tokens, requests, tokens, free = reply[1:9]
        return Admitted(choice - 1, amount, at_us, key_requests, key_tokens, requests, tokens, bool(free))
    word = first_word(reply)
    return Refused(word, tuple(part.decode() for part in reply[1:]))


async def look(redis: Caller, partition: str, key_id: str) -> Seen:
    """Read a key, its account and the config's version in one round trip; whatever decides on them is checked by admit."""
    keys = (keyspace.meta(partition), keyspace.api_key(partition, key_id))
    config, key, account = await redis.run(scripts.LOOK, keys, [keyspace.account(partition, "")])
    return Seen(int(config or 0), key, account)


def settling(
    redis: Caller,
    place: Place,
    rid: str,
    *,
    cost_nanos: int,
    event: bytes,
    admitted_us: int,
    tokens: int | None = None,
    void: bool = False,
) -> Future[Any]:
    """End a request for good, sent: `ended` reads the answer that the future will have. Idempotent by rid.

    `event` is opaque to Redis (see `events`); `tokens` None: as many as were held for.
    It is patient: with an admit that comes right behind it, for which a caller waits, it is one write to the disk.
    """
    word = "voided" if void else "settled"
    numbers = _ENDING.pack(cost_nanos, admitted_us, -1 if tokens is None else tokens)
    args: list[Arg] = [rid, word, event, numbers]
    return redis.run(scripts.SETTLE, ending_keys(place, rid), args, patient=True)


def ended(reply: Any) -> Ended | Old:
    """What became of a settle."""
    word = first_word(reply)
    if word == "OK":
        return Ended(reply[1].decode(), int(reply[2]), int(reply[3]), int(reply[4]), reply[5].decode())
    if word == "REPEAT":
        return Ended("repeat", int(reply[1] or 0), int(reply[2] or 0), 0, reply[3].decode())
    if word == "OLD":
        return Old()
    raise Unexpected(word)


async def progress(
    redis: Caller, place: Place, rid: str, *, used_nanos: int, lease_us: int = LEASE_US
) -> Literal["OK", "STOP", "GONE"]:
    """Renew a lease and report the cost so far. GONE is no reason to cut a request: carry on, and settle late."""
    keys = (
        keyspace.meta(place.partition),
        keyspace.hold(place.partition, rid),
        keyspace.due(place.partition),
    )
    word = first_word(await redis.run(scripts.PROGRESS, keys, [rid, used_nanos, lease_us]))
    if word in ("OK", "STOP", "GONE"):
        return word  # type: ignore[return-value]
    raise Unexpected(word)


async def sweep(redis: Caller, place: Place, rid: str) -> Ended | None:
    """Abandon one request whose lease has ended; None if it is not due or ended meanwhile."""
    reply = await redis.run(scripts.SWEEP, ending_keys(place, rid), [rid])
    if first_word(reply) == "OK":
        return Ended("abandoned", int(reply[1]), int(reply[2]), int(reply[3]))
    return None


async def grant(
    redis: Caller, partition: str, account: str, *, number: int, credited_nanos: int
) -> Literal["OK", "REPEAT", "RANGE"]:
    """Put money in: `credited_nanos` is the account's total after grant `number`; a lower number changes nothing."""
    keys = (keyspace.meta(partition), keyspace.account(partition, account))
    word = first_word(await redis.run(scripts.GRANT, keys, [number, str(credited_nanos)]))
    if word in ("OK", "REPEAT", "RANGE"):
        return word  # type: ignore[return-value]
    raise Unexpected(word)


async def publish(redis: Caller, partition: str, record: str, version: int, fields: dict[str, str]) -> bool:
    """Put a record's newer version in force; True if it was not already. `record` is its key; '' removes a field."""
    field = "config" if record == keyspace.meta(partition) else "ver"
    flat = [word for pair in fields.items() for word in pair]
    reply = await redis.run(scripts.PUBLISH, (keyspace.meta(partition), record), [field, version, *flat])
    return first_word(reply) == "OK"


async def debit(
    redis: Caller, partition: str, account: str, debit_id: str, *, amount_nanos: int, event: bytes, asked_us: int
) -> Debited | Refused | Old:
    """Take money out if it is covered. Idempotent by the id: a refusal, too, is answered again and not reconsidered."""
    keys = (
        keyspace.meta(partition),
        keyspace.account(partition, account),
        keyspace.hold(partition, debit_id),
        keyspace.usage(partition),
    )
    reply = await redis.run(scripts.DEBIT, keys, [debit_id, amount_nanos, event, asked_us])
    word = first_word(reply)
    if word in ("OK", "REPEAT"):
        return Debited(int(reply[1]), repeat=word == "REPEAT")
    if word == "FUNDS":
        return Refused(word, tuple(part.decode() for part in reply[1:]))
    if word == "OLD":
        return Old()
    raise Unexpected(word)


async def seal(redis: Caller, partition: str, *, day_end_us: int) -> tuple[int, int] | None:
    """Close the day before `day_end_us` for posting: the (epoch, seq) that hold all of it, None if it is not over yet."""
    reply = await redis.run(scripts.SEAL, (keyspace.meta(partition),), [day_end_us])
    word = first_word(reply)
    if word == "EARLY":
        return None
    if word != "OK":
        raise Unexpected(word)
    return int(reply[1]), int(reply[2])


_ENDING: Final = struct.Struct("<3d")


@lru_cache(maxsize=256)
def _doubles(count: int) -> struct.Struct:
    """So many numbers as the scripts read them: exact up to 2^53 - 1, and what is above they refuse."""
    return struct.Struct(f"<{count}d")


class _KeysAt(NamedTuple):
    """The keys of a place, and who it is to a hold. `holds`: how the key of each of its holds begins."""

    meta: str
    key: str
    account: str
    line: str
    holds: str
    due: str
    usage: str
    who: str


@lru_cache(maxsize=65_536)
def _keys_at(place: Place) -> _KeysAt:
    partition = place.partition
    return _KeysAt(
        keyspace.meta(partition),
        keyspace.api_key(partition, place.key),
        keyspace.account(partition, place.account),
        keyspace.line(partition, place.line),
        keyspace.hold(partition, ""),
        keyspace.due(partition),
        keyspace.usage(partition),
        f"{place.account} {place.key} {place.line}",
    )


def ending_keys(place: Place, rid: str) -> tuple[str, ...]:
    """The keys of the scripts that end a request: meta, account, line, hold, due, usage."""
    at = _keys_at(place)
    return (at.meta, at.account, at.line, at.holds + rid, at.due, at.usage)


def first_word(reply: Any) -> str:
    """What a script answers with; Fenced is raised for every script that says so."""
    word: str = reply[0].decode()
    if word == "FENCED":
        common_metrics.FENCED.inc()
        raise Fenced
    return word
