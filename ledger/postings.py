"""What a script says of money that it moved: the `posted` text of an entry of the usage stream (`lua/prelude_event.lua`)."""

from datetime import UTC, datetime
from typing import Self

import msgspec


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

    def text(self) -> str:
        """The `posted` of its entry."""
        numbers = (self.seq, self.epoch, self.charge_nanos, self.shortfall_nanos, self.hold_nanos)
        rest = (self.spent_after_nanos, self.at_us, int(self.free), self.id)
        return " ".join(map(str, (self.end, *numbers, *rest)))

    def time(self) -> datetime:
        """When, to the millisecond that MongoDB keeps; OverflowError, OSError or ValueError if that is no date."""
        return datetime.fromtimestamp(self.at_us // 1_000_000, UTC).replace(
            microsecond=self.at_us % 1_000_000 // 1000 * 1000
        )


def is_debit(entry: dict[bytes, bytes]) -> bool:
    """Whether a stream entry is of money that was taken out, and not of a request."""
    return entry.get(b"posted", b"").startswith(b"debit ")
