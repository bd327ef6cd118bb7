"""What a script says of money that it moved: the `posted` text of an entry of the usage stream (`lua/prelude_event.lua`)."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Self

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000


class Posting(msgspec.Struct, frozen=True, gc=False):
    """One movement: how a request ended (or that it is a debit), its number, nano-USD, and when (us, the server's clock)."""

    end: str
    seq: int
    epoch: int
    charge_nanos: int
    shortfall_nanos: int
    hold_nanos: int
    spent_after_nanos: int
    at_us: int
    free: bool
    id: str

    @classmethod
    def read(cls, entry: dict[bytes, bytes]) -> Self:
        """The posting of a stream entry; KeyError or ValueError if it has none that can be read."""
        end, seq, epoch, charge, short, hold, spent, at, free, rid = entry[b"posted"].decode().split(" ", 9)
        return cls(
            end, int(seq), int(epoch), int(charge), int(short), int(hold), int(spent), int(at), bool(int(free)), rid
        )

    def time(self) -> datetime:
        """When, to the millisecond that MongoDB keeps; OverflowError if that is no date."""
        return _EPOCH + timedelta(milliseconds=self.at_us // 1000)


def day_of(at_us: int) -> str:
    """The UTC day of a time, as the books write it."""
    return _day(at_us // _DAY_US)


@lru_cache(maxsize=4)
def _day(number: int) -> str:
    return (_EPOCH + timedelta(days=number)).strftime("%Y-%m-%d")


def is_debit(entry: dict[bytes, bytes]) -> bool:
    """Whether a stream entry is of money that was taken out, and not of a request."""
    return entry.get(b"posted", b"").startswith(b"debit ")
