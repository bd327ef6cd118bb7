"""Providers' error texts on their way to a caller."""

import pytest

from gateway.leaks import without_secrets


@pytest.mark.wire("6.5")
@pytest.mark.parametrize(
    ("said", "passed"),
    [
        (
            b"Rate limit reached in organization org-AbC123xyz on tokens",
            b"Rate limit reached in organization org-*** on tokens",
        ),
        (b"Incorrect API key provided: sk-proj-ab*****cdef.", b"Incorrect API key provided: sk-***."),
        (b'{"message":"Consumer projects/1234567890 has"}', b'{"message":"Consumer projects/*** has"}'),
        (b"Project proj_abc123 and user-Zz9xY1 of wrkspc_01AB", b"Project proj_*** and user-*** of wrkspc_***"),
        (b"key AIzaSyA1234567 is blocked; xai-abcdef0 too", b"key AIza*** is blocked; xai-*** too"),
    ],
)
def test_keys_and_names_are_masked(said: bytes, passed: bytes) -> None:
    assert without_secrets(said) == passed


@pytest.mark.wire("6.5")
@pytest.mark.parametrize(
    "text", [b"user-friendly org-wide task-force", b"The model `gpt-x` does not exist", b"", b"\xff\x00"]
)
def test_other_words_stay(text: bytes) -> None:
    assert without_secrets(text) == text
