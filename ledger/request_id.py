"""Request ids: UUID version 7 (RFC 9562), so that an id tells when its request began."""

import random
import struct
import time
from typing import Final

_VERSION: Final = 0x7000
_VARIANT: Final = 0x8000_0000
_FORM: Final = struct.Struct(">QII")
_bits: Final = random.getrandbits  # unique, not secret: seeded by the system, anew in each process


def new() -> str:
    """A fresh id as 32 hex digits: 48 bits of Unix milliseconds, then 74 random bits around version and variant."""
    ms = time.time_ns() // 1_000_000
    return _FORM.pack(ms << 16 | _VERSION | _bits(12), _VARIANT | _bits(30), _bits(32)).hex()


def began_ms(rid: str) -> int:
    """Unix milliseconds at which the request of this id began."""
    return int(rid[:12], 16)
