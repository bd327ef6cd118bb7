"""Request ids: UUID version 7 (RFC 9562), so that an id tells when its request began."""

import time
from random import getrandbits  # unique, not secret: seeded by the system, anew in each process

_LOW = (1 << 62) - 1


def new() -> str:
    """A fresh id as 32 hex digits: 48 bits of Unix milliseconds, then 74 random bits."""
    bits = getrandbits(74)
    return f"{time.time_ns() // 1_000_000:012x}{0x7000 | bits >> 62:04x}{0x8000_0000_0000_0000 | bits & _LOW:016x}"


def began_ms(rid: str) -> int:
    """Unix milliseconds at which the request of this id began."""
    return int(rid[:12], 16)
