"""The cutter of JSON arrays: every object whole, at any split of the bytes, each byte looked at once."""

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import array as module
from gateway.dialects.array import Array
from gateway.dialects.sse import FrameTooLong

pytestmark = pytest.mark.wire("3b.5", "5.3")

# Text that looks like structure, and the characters that JSON escapes.
TEXT = st.text(st.sampled_from('{}[]",:\\\n\u2028éa'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXT, inside, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=4)


def cut(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    cutter = Array()
    found = [piece for data in pieces for piece in cutter.feed(data)]
    return found, cutter.rest()


@given(OBJECTS, st.sampled_from([None, 0, 2]), st.booleans(), st.data())
def test_every_object_of_the_array(
    objects: list[Any], indent: int | None, ascii_only: bool, data: st.DataObject
) -> None:
    body = json.dumps(objects, indent=indent, ensure_ascii=ascii_only).encode()
    at = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    pieces = [body[start:end] for start, end in itertools.pairwise([0, *at, len(body)])]
    for split in (pieces, [body[n : n + 1] for n in range(len(body))]):
        found, rest = cut(split)
        assert [json.loads(piece) for piece in found] == objects
        assert rest == b""


@given(OBJECTS.filter(bool), st.data())
def test_what_has_not_ended_waits(objects: list[Any], data: st.DataObject) -> None:
    body = json.dumps(objects).encode()
    end = data.draw(st.integers(0, len(body)))
    found, rest = cut([body[:end]])
    whole, _ = cut([body])
    assert found == whole[: len(found)]
    if len(found) < len(whole):
        assert whole[len(found)].startswith(rest)
    assert body[:end].count(b"{") == 0 or found or rest


def test_objects_without_an_array_and_strings_beside_objects() -> None:
    assert cut([b' {"error": {"code": 503}} ']) == ([b'{"error": {"code": 503}}'], b"")
    assert cut([b'["{", {"a": 1}, "}", [{"b": {}}], 7]']) == ([b'{"a": 1}', b'{"b": {}}'], b"")
    assert cut([b'}{"a": 1}']) == ([b'{"a": 1}'], b""), "a brace too many is no object"
    assert cut([b'["\\', b'"{', b'", {"a": "\\', b"\\", b'"}']) == ([b'{"a": "\\\\"}'], b"")


def test_an_object_longer_than_any_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FRAME", 100)
    cutter = Array()
    assert cutter.feed(b'[{"a": "' + b"x" * 50) == []
    with pytest.raises(FrameTooLong):
        cutter.feed(b"x" * 60)
    assert len(cut([b'{"a', b'": 1}'] * 100)[0]) == 100, "many short ones are no long one"


def test_a_long_string_costs_no_more_in_many_pieces() -> None:
    """An image of 8 MB in pieces of 4 kB: each byte is looked at once, not once a piece."""
    body = b'[{"data": "' + b"A" * 8_000_000 + b'"}]'
    began = time.perf_counter()
    found, rest = cut([body[at : at + 4096] for at in range(0, len(body), 4096)])
    assert (len(found), rest) == (1, b"")
    assert time.perf_counter() - began < 2, "quadratic work would take minutes"
