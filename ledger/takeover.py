"""How a partition of the hot book is taken over: what only the worker that leads asks, one typed function per script.

Errors are those of `hot`.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ledger import keyspace, scripts
from ledger.hot import LEASE_US, Place, Unexpected, ending_keys, first_word
from ledger.link import Arg, Caller


class Record(NamedTuple):
    """What `restore` puts at one key: its kind and words are listed in the script's header."""

    key: str
    kind: Literal["money", "policy", "counters", "line", "mark"]
    words: tuple[Arg, ...]


async def adopt(
    redis: Caller,
    place: Place,
    rid: str,
    *,
    abandoned: bool,
    charge_nanos: int,
    shortfall_nanos: int,
    beyond: bool = False,
) -> bool:
    """Reopening: take over an event that MongoDB has and this server lost; True if it was not known.

    `beyond`: the event came to MongoDB after its epoch was closed without it; then also while the partition is open.
    """
    keys = ending_keys(place, rid)[:5]
    args: list[Arg] = [rid, "X" if abandoned else "S", charge_nanos, shortfall_nanos, "beyond" if beyond else ""]
    return first_word(await redis.run(scripts.ADOPT, keys, args)) == "OK"


async def reopen(
    redis: Caller,
    partition: str,
    step: Literal["take", "recover", "open"],
    *,
    term: int,
    epoch: int = 0,
    config: int = 0,
    instance: str = "",
    lease_us: int = LEASE_US,
    floor_us: int = 0,
) -> Literal["OK", "TERM", "LOST"]:
    """One step of letting this server serve a partition; `term` is the leader's fencing token.

    `floor_us` is the end of the last sealed day; no event is dated before it.
    """
    keys = (keyspace.meta(partition), keyspace.due(partition))
    word = first_word(await redis.run(scripts.REOPEN, keys, [step, term, lease_us, epoch, config, instance, floor_us]))
    if word in ("OK", "TERM", "LOST"):
        return word  # type: ignore[return-value]
    raise Unexpected(word)


async def restore(redis: Caller, partition: str, records: Sequence[Record], *, term: int) -> Literal["OK", "TERM"]:
    """Put records of an emptied partition in place, absolutely, while it is being rebuilt; all or none of them."""
    keys = (keyspace.meta(partition), *(record.key for record in records))
    args: list[Arg] = [term]
    for record in records:
        args += (record.kind, len(record.words), *record.words)
    word = first_word(await redis.run(scripts.RESTORE, keys, args))
    if word in ("OK", "TERM"):
        return word  # type: ignore[return-value]
    raise Unexpected(word)
