"""What an account has, and has in use, as Redis keeps it (`lua/prelude_balance.lua`), for readers outside the scripts."""

import struct
from typing import NamedTuple, Self

_FORM = struct.Struct("<5d")
FIELD = "balance"
"""Of the account's hash; `credited` and `spent`, which may pass 2^53 - 1, are fields beside it."""


class Balance(NamedTuple):
    """Of an account: available and held (nano-USD), requests in flight, and its rate states (us)."""

    available_nanos: int = 0
    held_nanos: int = 0
    live: int = 0
    requests_us: int = 0
    tokens_us: int = 0

    def record(self) -> bytes:
        """The value of the field."""
        return _FORM.pack(*self)

    @classmethod
    def read(cls, record: bytes | None) -> Self:
        """What the value of the field says; all 0 if there is none."""
        return cls(*map(int, _FORM.unpack(record))) if record else cls()
