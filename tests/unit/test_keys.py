"""API keys: the form, the checksum and the digest."""

import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import keys
from ledger.keyspace import PARTITIONS

KEY, ID = keys.mint("5a")


def accepted(key: bytes) -> keys.KeyId | None:
    """What a stranger's key comes to: nothing, unless its form and its checksum are right."""
    return keys.parse(key) if keys.is_whole(key) else None


def test_a_key_has_the_documented_form() -> None:
    assert re.fullmatch(r"weir_5a[a-z2-7]{12}_[0-9A-Za-z]{38}", KEY)
    assert len(KEY) == keys.KEY_LENGTH
    assert accepted(KEY.encode()) == keys.KeyId("5a", ID)


@pytest.mark.parametrize("partition", PARTITIONS[::17])
def test_every_minted_key_parses(partition: str) -> None:
    key, key_id = keys.mint(partition)
    assert accepted(key.encode()) == keys.KeyId(partition, key_id)


def test_no_two_keys_are_alike() -> None:
    minted = [keys.mint("00") for _ in range(1000)]
    assert len({key for key, _ in minted}) == len({key_id for _, key_id in minted}) == 1000


@given(st.integers(0, len(KEY) - 1), st.integers(0, 255))
def test_any_single_changed_byte_is_refused(at: int, byte: int) -> None:
    changed = bytearray(KEY.encode())
    if changed[at] == byte:
        return
    changed[at] = byte
    assert accepted(bytes(changed)) is None


def test_every_single_changed_character_of_the_alphabet_is_refused() -> None:
    raw = KEY.encode()
    for at in range(len(raw)):
        for byte in b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_":
            if raw[at] != byte:
                assert accepted(raw[:at] + bytes([byte]) + raw[at + 1 :]) is None


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"weir_",
        KEY.encode() + b"\n",
        b" " + KEY.encode(),
        KEY.encode()[:-1],
        KEY.encode() * 2,
        KEY.upper().encode(),
    ],
    ids=["empty", "prefix", "line end", "space", "short", "twice", "capitals"],
)
def test_other_forms_are_refused(key: bytes) -> None:
    assert accepted(key) is None


@given(st.binary(max_size=100))
def test_junk_never_parses_and_never_fails(junk: bytes) -> None:
    assert accepted(junk) is None


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_the_digest_is_keyed_and_tells_nothing(pepper: bytes, other: bytes) -> None:
    digest = keys.digest(pepper, KEY.encode())
    assert digest == hmac.new(pepper, KEY.encode(), "sha256").hexdigest()
    assert (digest == keys.digest(other, KEY.encode())) is (pepper == other)
    assert KEY[-38:] not in digest


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_digester_digests_like_the_library(pepper: bytes, key: bytes) -> None:
    digester = keys.Digester(pepper)
    assert [digester(key), digester(key)] == [keys.digest(pepper, key)] * 2
