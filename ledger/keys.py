"""API keys: `weir_<partition><key id>_<secret><checksum>`, kept only as a keyed digest.

The partition (two hex digits) is the account's, so a script finds its slot without a lookup. The checksum lets junk be
refused without a round trip. The secret has 190 random bits, so a fast hash is right: slow ones are for passwords.
"""

import hmac
import re
import secrets
import zlib
from hashlib import sha256
from typing import Final

from ledger.frozen import Frozen

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_ID_CHARS: Final = 12
_SECRET_CHARS: Final = 32  # 32 x log2(62) = 190.5 bits
_BLOCK: Final = 64  # of SHA-256
_CHECKSUM_CHARS: Final = 6  # 62^6 > 2^32
_FORM: Final = re.compile(rb"weir_([0-9a-f]{2})([a-z2-7]{12})_[0-9A-Za-z]{38}\Z")

KEY_LENGTH: Final = len("weir_") + 2 + _ID_CHARS + 1 + _SECRET_CHARS + _CHECKSUM_CHARS


class KeyId(Frozen, frozen=True):
    """Where a key's record lies: its partition (two hex digits) and its id. Neither is secret."""

    partition: str
    id: str


def mint(partition: str) -> tuple[str, str]:
    """A new key for an account on `partition`: (the key, shown once; its id)."""
    key_id = new_id()
    secret = "".join(secrets.choice(_BASE62) for _ in range(_SECRET_CHARS))
    body = f"weir_{partition}{key_id}_{secret}"
    return body + _checksum(body.encode()), key_id


def new_id() -> str:
    """60 random bits that are safe in a URL, a file name and a Redis key."""
    return "".join(secrets.choice(_BASE32) for _ in range(_ID_CHARS))


def parse(key: bytes) -> KeyId | None:
    """The partition and id that a key names, None if it has not the form of one; `is_whole` looks at its checksum."""
    match = _FORM.match(key)
    return None if match is None else KeyId(match[1].decode(), match[2].decode())


def is_whole(key: bytes) -> bool:
    """Whether the checksum is right: only keys that somebody issued, or went to some length to make up, have it."""
    return _checksum(key[:-_CHECKSUM_CHARS]).encode() == key[-_CHECKSUM_CHARS:]


def digest(pepper: bytes, key: bytes) -> str:
    """What is kept of a key: HMAC-SHA256 under a pepper that never lies beside it in the clear."""
    return hmac.digest(pepper, key, "sha256").hex()


class Digester:
    """`digest` under one pepper, set up once: a third of the price (RFC 2104; docs/performance.md)."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, pepper: bytes) -> None:
        block = (pepper if len(pepper) <= _BLOCK else sha256(pepper).digest()).ljust(_BLOCK, b"\0")
        self._inner = sha256(bytes([byte ^ 0x36 for byte in block]))
        self._outer = sha256(bytes([byte ^ 0x5C for byte in block]))

    def __call__(self, key: bytes) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(key)
        outer.update(inner.digest())
        return outer.hexdigest()


def _checksum(body: bytes) -> str:
    number = zlib.crc32(body)
    digits = []
    for _ in range(_CHECKSUM_CHARS):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
