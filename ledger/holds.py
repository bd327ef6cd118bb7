"""What Redis keeps of a request, as text (`lua/prelude_hold.lua` has its form), for those that read it outside a script."""

from typing import NamedTuple

MARK_MS = 3_600_000  # how long an ended request is remembered: `prelude.lua`


class Hold(NamedTuple):
    """A request that has not ended: what it holds, and whose it is."""

    amount_nanos: int
    account: str
    key: str
    line: str


def read(text: bytes | None) -> Hold | None:
    """The hold in the value of its key; None if there is none, or the request has ended."""
    words = (text or b"").split(b" ", 15)
    if words[0] != b"H":
        return None
    account, key, line = (word.decode() for word in words[12:15])
    return Hold(int(words[2]), account, key, line)


def swept(charge_nanos: int, shortfall_nanos: int) -> str:
    """The value for a request that was abandoned, when its admit's periods are not known any more."""
    return f"X {charge_nanos} {shortfall_nanos}"
