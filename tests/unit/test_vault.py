"""The vault: what was sealed opens only whole, for its purpose, with a key at hand."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.vault import Vault, VaultError, parse_master_key

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
PURPOSE = "upstreams/u1/credential"
SECRET = b"sk-canary-42"


@given(st.binary(max_size=300), st.text(max_size=50))
def test_what_was_sealed_opens(secret: bytes, purpose: str) -> None:
    vault = Vault(OLD)
    sealed = vault.seal(secret, purpose=purpose)
    assert vault.open(sealed, purpose=purpose) == secret
    assert vault.is_current(sealed)


def test_the_same_secret_is_never_sealed_alike() -> None:
    vault = Vault(OLD)
    assert len({vault.seal(SECRET, purpose=PURPOSE) for _ in range(200)}) == 200


@given(st.data())
def test_any_changed_bit_is_found(data: st.DataObject) -> None:
    vault = Vault(OLD)
    key_id, _, body = vault.seal(SECRET, purpose=PURPOSE).partition(".")
    raw = bytearray(base64.urlsafe_b64decode(body))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(VaultError):
        vault.open(f"{key_id}.{base64.urlsafe_b64encode(bytes(raw)).decode()}", purpose=PURPOSE)


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_anything_cut_off_is_found(cut: int) -> None:
    vault = Vault(OLD)
    sealed = vault.seal(SECRET, purpose=PURPOSE)
    with pytest.raises(VaultError):
        vault.open(sealed[: len(sealed) - 1 - cut], purpose=PURPOSE)


@pytest.mark.parametrize("sealed", ["", ".", "x", "deadbeef.", "deadbeef.AAAA", "é.ü"])
def test_what_was_never_sealed(sealed: str) -> None:
    with pytest.raises(VaultError):
        Vault(OLD).open(sealed, purpose=PURPOSE)


@pytest.mark.parametrize("body", ["", "AAAA", "ü", "!" * 40])
def test_our_key_id_before_junk(body: str) -> None:
    vault = Vault(OLD)
    key_id = vault.seal(b"", purpose=PURPOSE).partition(".")[0]
    with pytest.raises(VaultError):
        vault.open(f"{key_id}.{body}", purpose=PURPOSE)


@pytest.mark.parametrize("purpose", ["upstreams/u2/credential", "peppers/u1/credential", ""])
def test_a_copy_in_another_record_does_not_open_and_the_error_tells_nothing(purpose: str) -> None:
    vault = Vault(OLD)
    with pytest.raises(VaultError) as caught:
        vault.open(vault.seal(SECRET, purpose=PURPOSE), purpose=purpose)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_rotation_opens_both_and_seals_with_the_new() -> None:
    sealed = Vault(OLD).seal(SECRET, purpose=PURPOSE)
    both = Vault(NEW, OLD)
    assert both.open(sealed, purpose=PURPOSE) == SECRET
    assert not both.is_current(sealed)
    resealed = both.seal(SECRET, purpose=PURPOSE)
    assert both.is_current(resealed)
    assert Vault(NEW).open(resealed, purpose=PURPOSE) == SECRET
    with pytest.raises(VaultError, match="not at hand"):
        Vault(NEW).open(sealed, purpose=PURPOSE)
    with pytest.raises(VaultError, match="not at hand"):
        Vault(OLD).open(resealed, purpose=PURPOSE)


def test_the_same_key_as_previous_is_one_key() -> None:
    vault = Vault(OLD, OLD)
    assert vault.open(vault.seal(SECRET, purpose=PURPOSE), purpose=PURPOSE) == SECRET


@given(st.binary(min_size=32, max_size=32))
def test_a_master_key_is_32_bytes_of_base64(key: bytes) -> None:
    text = base64.b64encode(key).decode()
    assert parse_master_key(text) == parse_master_key(f" {text}\n") == key


@pytest.mark.parametrize("text", ["", "x", "a" * 31, "!" * 44, base64.b64encode(b"a" * 31).decode(), "ü" * 44])
def test_a_bad_master_key_is_refused_with_the_way_to_make_one(text: str) -> None:
    with pytest.raises(ValueError, match="head -c 32 /dev/urandom") as caught:
        parse_master_key(text)
    assert not text or text not in str(caught.value)
