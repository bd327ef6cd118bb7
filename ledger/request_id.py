"""Request ids: UUID version 7 (RFC 9562), so that an id tells when its request began."""

import os
import time


def new() -> str:
    """A fresh id as 32 hex digits: 48 bits of Unix milliseconds, then 74 random bits."""
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | (random[0] & 0x0F)
    random[2] = 0x80 | (random[2] & 0x3F)
    return f"{time.time_ns() // 1_000_000:012x}{random.hex()}"


def began_ms(rid: str) -> int:
    """Unix milliseconds at which the request of this id began."""
    return int(rid[:12], 16)
