"""What a key has in use, as Redis keeps it (`lua/prelude_line.lua` has its form), for readers outside the scripts."""

import struct
from typing import NamedTuple, Self

_FORM = struct.Struct("<7d")


class InUse(NamedTuple):
    """Of a key and those that replace it: requests in flight, rate states (us), and spent or held (nano-USD) by period.

    `day` counts from 1970, `month` as `prelude_limits.lua` does.
    """

    live: int = 0
    requests_us: int = 0
    tokens_us: int = 0
    day: int = 0
    spent_in_day: int = 0
    month: int = 0
    spent_in_month: int = 0

    def record(self) -> bytes:
        """The value of the line's key."""
        return _FORM.pack(*self)

    @classmethod
    def read(cls, record: bytes | None) -> Self:
        """What the value of a line's key says; all 0 if there is none."""
        return cls(*map(int, _FORM.unpack(record))) if record else cls()
