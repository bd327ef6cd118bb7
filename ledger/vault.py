"""Secrets at rest: AES-256-GCM under the operator's master key (NIST SP 800-38D).

A sealed value reads `<key id>.<nonce><ciphertext and tag>`, base64url. The associated data names the collection, id and
field it was sealed for, so a ciphertext copied into another record does not open.
"""

import base64
import binascii
import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_NONCE_BYTES = 12


class VaultError(Exception):
    """A sealed value does not open with the master keys at hand. Never says what was inside."""


def parse_master_key(text: str) -> bytes:
    """The 32 bytes of a base64 master key; ValueError with the way to make one otherwise."""
    hint = "make one with: head -c 32 /dev/urandom | base64"
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"is not base64; {hint}") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"has {len(key)} bytes and needs {KEY_BYTES}; {hint}")
    return key


class Vault:
    """Seals with the current master key; opens with it or, during rotation, with the previous one."""

    def __init__(self, master_key: bytes, previous: bytes | None = None) -> None:
        self._current = _key_id(master_key)
        self._ciphers = {self._current: AESGCM(master_key)}
        if previous is not None:
            self._ciphers.setdefault(_key_id(previous), AESGCM(previous))

    def seal(self, secret: bytes, *, purpose: str) -> str:
        """`secret` as text that is safe to store. `purpose` is "collection/id/field"."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, secret, purpose.encode())
        return f"{self._current}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *, purpose: str) -> bytes:
        """What was sealed for this purpose, or VaultError."""
        key_id, _, body = sealed.partition(".")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise VaultError(f"{purpose} is sealed with master key {key_id}, which is not at hand")
        try:
            raw = base64.urlsafe_b64decode(body)
            return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode())
        except (binascii.Error, ValueError, InvalidTag):
            raise VaultError(f"{purpose} does not open: it was altered, or sealed for something else") from None

    def is_current(self, sealed: str) -> bool:
        """Whether a value is already sealed with the current master key."""
        return sealed.startswith(self._current + ".")


def _key_id(master_key: bytes) -> str:
    """Eight hex digits that name a master key without telling it."""
    return hashlib.sha256(b"weir master key id" + master_key).hexdigest()[:8]
