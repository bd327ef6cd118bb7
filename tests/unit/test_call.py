"""What is sent to Redis: arrays of bulk strings, as hiredis packs them, whoever packs."""

import asyncio
from typing import Any

import pytest
from hiredis import pack_command
from hypothesis import given
from hypothesis import strategies as st

from ledger.call import Call, Script, pack

WORDS: Any = st.text() | st.binary() | st.integers() | st.binary(min_size=900, max_size=1_200)
SCRIPT = Script("look")


@given(st.lists(WORDS, min_size=1, max_size=300))
def test_words_are_packed_as_hiredis_packs_them(words: list[Any]) -> None:
    assert pack(words) == pack_command(tuple(words))


@given(st.lists(WORDS, max_size=8))
def test_a_script_goes_by_its_digest(words: list[Any]) -> None:
    expected = pack_command(("EVALSHA", SCRIPT.sha, *words))
    assert pack(words, SCRIPT.head, 2) == expected
    loop = asyncio.new_event_loop()
    assert Call(SCRIPT, tuple(words), loop.create_future()).packed() == expected
    loop.close()


class Word(int):
    """As BSON's Int64."""


@pytest.mark.parametrize("word", [1.5, None, Word(1), True, ["a"]])
def test_what_is_no_word_is_refused(word: Any) -> None:
    with pytest.raises(TypeError):
        pack(["GET", word])


def test_a_text_that_has_no_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        pack(["GET", "\ud800"])
