"""Changing a value deep in a body: that value, and no other byte."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.gemini.splice import object_in, replaced, spans

pytestmark = pytest.mark.wire("5.4")

TEXT = st.text(st.sampled_from('{}[]",:\\\n éab'), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXT, inside, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=4)


def written(value: Any, *, spaced: bool, ascii_only: bool) -> bytes:
    return json.dumps(value, indent=3 if spaced else None, ensure_ascii=ascii_only).encode()


def values(body: bytes, *path: str | None) -> list[bytes]:
    return [body[start:end] for start, end in spans(body, path)]


def test_places() -> None:
    body = b' {"a" : {"b": [1 , {"c":"x,}"} ,[ ] , {"c" : null}], "b\\u0062": 2} , "b": {"c": 0} } '
    assert values(body, "b") == [b'{"c": 0}']
    assert values(body, "a", "b", None) == [b"1", b'{"c":"x,}"}', b"[ ]", b'{"c" : null}']
    assert values(body, "a", "b", None, "c") == [b'"x,}"', b"null"]
    assert values(body, "a", "bb") == [b"2"], "an escaped name is the same name"
    assert values(body, "c") == values(body, "a", "c") == values(body, "a", None) == values(body, "b", "c", None) == []
    assert values(b"{}", "a") == values(b'{"a": []}', "a", None) == values(b'{"a": "{}"}', "a", "b") == []
    assert values(body) == [body]


def test_replacing_keeps_the_order() -> None:
    body = b'[{"m":"a"}, {"x":{"m":"no"}} ,{"m" : "b" }]'
    assert replaced(body, spans(body, (None, "m")), b'"c"') == b'[{"m":"c"}, {"x":{"m":"no"}} ,{"m" : "c" }]'
    assert replaced(body, [], b"x") == body


@given(OBJECTS, OBJECTS, VALUES, VALUES, st.booleans(), st.booleans())
def test_one_value_is_replaced_and_every_other_byte_stays(
    outer: dict[str, Any], inner: dict[str, Any], old: Any, new: Any, spaced: bool, ascii_only: bool
) -> None:
    before = {**outer, "CONFIG": {**inner, "CAP": old, "after": [{"CAP": 1}]}, "end": {"CONFIG": 2}}
    body = written(before, spaced=spaced, ascii_only=ascii_only)
    [(start, end)] = spans(body, ("CONFIG", "CAP"))
    assert json.loads(body[start:end]) == old
    done = replaced(body, [(start, end)], json.dumps(new).encode())
    assert json.loads(done) == {**before, "CONFIG": {**inner, "CAP": new, "after": [{"CAP": 1}]}}
    assert done[:start] == body[:start]
    assert done[len(done) - len(body) + end :] == body[end:]


@given(OBJECTS, st.booleans(), st.booleans())
def test_every_member_is_found(value: dict[str, Any], spaced: bool, ascii_only: bool) -> None:
    body = written(value, spaced=spaced, ascii_only=ascii_only)
    for name, member in value.items():
        assert [json.loads(found) for found in values(body, name)] == [member]
        if isinstance(member, list):
            assert [json.loads(found) for found in values(body, name, None)] == member


@given(
    st.dictionaries(TEXT | st.just("C"), VALUES | st.just("C") | st.dictionaries(st.just("C"), OBJECTS), max_size=4),
    OBJECTS,
    st.booleans(),
    st.booleans(),
)
def test_an_object_is_found_the_short_way_and_the_long_way(
    outer: dict[str, Any], config: dict[str, Any], spaced: bool, ascii_only: bool
) -> None:
    """Beside strings that are or end in its name, members of its name deeper inside, and names with escaped letters."""
    body = written({"text": 'a "C"', **outer, "C": config}, spaced=spaced, ascii_only=ascii_only)
    for spelt in (body, body.replace(b'"C"', b'"\\u0043"'), body.replace(b'"C"', b'"\\u0043"', 1)):
        start, end = object_in(spelt, "C")
        assert json.loads(spelt[start:end]) == config
        assert [(start, end)] == spans(spelt, ("C",))
