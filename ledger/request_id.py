"""Request ids: UUID version 7 (RFC 9562), so that an id tells when its request began."""

import time
from random import getrandbits  # unique, not secret: seeded by the system, anew in each process

_VERSION, _VARIANT = 0x7 << 76, 0b10 << 62


def new() -> str:
    """A fresh id as 32 hex digits: 48 bits of Unix milliseconds, then 74 random bits around version and variant."""
    ms = time.time_ns() // 1_000_000
    return (ms << 80 | _VERSION | getrandbits(12) << 64 | _VARIANT | getrandbits(62)).to_bytes(16).hex()


def began_ms(rid: str) -> int:
    """Unix milliseconds at which the request of this id began."""
    return int(rid[:12], 16)
