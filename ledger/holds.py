"""What Redis keeps of a request (`lua/prelude_form.lua` has its form), for those that read it outside a script."""

import struct
from typing import NamedTuple

MARK_MS = 3_600_000  # how long an ended request is remembered: `prelude.lua`
NUMBERS = struct.Struct("<10d")  # choice amount at used tokens key_us account_us day month free
_HEAD = 1 + NUMBERS.size


class Hold(NamedTuple):
    """A request that has not ended: what it holds, and whose it is."""

    amount_nanos: int
    account: str
    key: str
    line: str


def read(value: bytes | None) -> Hold | None:
    """The hold in the value of its key; None if there is none, or the request has ended."""
    if value is None or not value.startswith(b"L"):
        return None
    _, amount, *_ = NUMBERS.unpack_from(value, 1)
    _, account, key, line = (word.decode() for word in value[_HEAD:].split(b" ", 4)[:4])
    return Hold(int(amount), account, key, line)


def swept(charge_nanos: int, shortfall_nanos: int) -> str:
    """The value for a request that was abandoned, when its admit's periods are not known any more."""
    return f"X {charge_nanos} {shortfall_nanos}"
