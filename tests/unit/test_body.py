"""Reading and splicing JSON bodies: what is ambiguous is refused, and what is not changed stays byte for byte."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.body import BadBody, add_member, parse_object, replace_member
from gateway.dialects.openai.chat import Chat
from gateway.dialects.shape import Asked, Call

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=5)
COMPACT = (",", ":")


def written(value: Any, *, spaced: bool, ascii_only: bool) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only, indent=1 if spaced else None).encode()


def read_request(body: bytes) -> Asked:
    return Chat().read(Call(body))


def write_request(body: bytes, asked: Asked, *, model: str, cap: int | None) -> bytes:
    return Chat().write(Call(body), asked, model=model, cap=cap).body


@pytest.mark.wire("6.10")
@given(OBJECTS, st.booleans(), st.booleans())
def test_every_object_is_read(value: dict[str, Any], spaced: bool, ascii_only: bool) -> None:
    assert parse_object(written(value, spaced=spaced, ascii_only=ascii_only)) == value


@pytest.mark.wire("6.10")
@given(OBJECTS, st.booleans())
def test_every_object_is_read_as_sdks_write_it(value: dict[str, Any], ascii_only: bool) -> None:
    assert parse_object(json.dumps(value, ensure_ascii=ascii_only, separators=COMPACT).encode()) == value


@pytest.mark.wire("6.10")
@pytest.mark.parametrize(
    "body",
    [
        rb'{"a":"\u0022"}',
        rb'{"a":"\u005c"}',
        rb'{"a":"\\\u0022"}',
        rb'{"\u005c\u0022":"\\\"","b":"\\\\"}',
        rb'{"a":"\u005c","b":"\u0022\u0022"}',
    ],
)
def test_quotes_and_backslashes_may_be_spelt_in_every_way(body: bytes) -> None:
    """A quote inside a string ends none, however it is escaped: it is no sign of a name that was dropped."""
    assert parse_object(body) == json.loads(body)


@pytest.mark.wire("6.10")
@pytest.mark.parametrize("body", [b'{"a":1,"a":1}', rb'{"a":"\u0022","a":1}', rb'{"b":{"a":"\\","\u0061":2}}'])
def test_a_name_twice_is_refused_without_any_space_as_well(body: bytes) -> None:
    with pytest.raises(BadBody, match="twice"):
        parse_object(body)


@pytest.mark.wire("6.10")
@given(st.lists(st.tuples(TEXT, VALUES), min_size=1, max_size=4), st.data())
def test_a_name_twice_is_refused_however_deep_and_however_spelt(
    pairs: list[tuple[str, Any]], data: st.DataObject
) -> None:
    unique = dict(pairs)
    name = data.draw(st.sampled_from(sorted(unique)))
    again = "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in name) if data.draw(st.booleans()) else None
    spelt = json.dumps(name) if again is None else f'"{again}"'
    members = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in unique.items()]
    members.insert(data.draw(st.integers(0, len(members))), f"{spelt}: {json.dumps(data.draw(VALUES))}")
    body = "{" + ", ".join(members) + "}"
    for _ in range(data.draw(st.integers(0, 3))):
        body = f'{{"outer": [{body}]}}'
    with pytest.raises(BadBody, match="twice"):
        parse_object(body.encode())


@pytest.mark.wire("6.10")
@pytest.mark.parametrize("depth", [100, 300, 900, 5_000, 100_000])
def test_deep_nesting_is_read_or_refused_and_never_a_failure(depth: int) -> None:
    body = b'{"a":' * depth + b"1" + b"}" * depth
    if depth <= 200:
        assert parse_object(body)
    else:
        with pytest.raises(BadBody):
            parse_object(body)


@pytest.mark.wire("5.4")
@given(OBJECTS, VALUES, VALUES, st.booleans())
def test_a_member_is_replaced_and_every_other_byte_stays(
    value: dict[str, Any], old: Any, new: Any, spaced: bool
) -> None:
    name = "model"
    body = written({**value, name: old, "after": [name, {name: 1}]}, spaced=spaced, ascii_only=False)
    done = replace_member(body, name, new)
    assert json.loads(done) == {**value, name: new, "after": [name, {name: 1}]}
    token = json.dumps(name).encode() + b": "
    outer = json.dumps({k: v for k, v in value.items() if k != name}, ensure_ascii=False)
    if token.decode() not in outer:
        start = body.index(token) + len(token)
        assert done[:start] == body[:start]
        tail = body[start:].index(b'"after"') if old != "after" else None
        if tail is not None and b'"after"' not in json.dumps(old).encode() + json.dumps(new).encode():
            assert done[done.index(b'"after"') :] == body[body.index(b'"after"') :]


@pytest.mark.wire("5.4")
@given(OBJECTS, VALUES, VALUES, st.booleans(), st.integers(0, 5), st.data())
def test_a_member_is_replaced_wherever_it_stands(
    value: dict[str, Any], old: Any, new: Any, compact: bool, at: int, data: st.DataObject
) -> None:
    """Also behind an inner member of the same name, or a string that says it."""
    for name in ("model", "before"):
        value.pop(name, None)
    inner = data.draw(st.sampled_from([None, "model", {"model": 1}, [{"model": "m"}], '"model":1', "\\u00"]))
    members = [*([("before", inner)] if inner is not None else ()), *value.items()]
    members.insert(min(at, len(members)), ("model", old))
    body = json.dumps(dict(members), ensure_ascii=False, separators=COMPACT if compact else None).encode()
    done = replace_member(body, "model", new)
    assert list(json.loads(done).items()) == [(k, new if k == "model" else v) for k, v in members]


@pytest.mark.wire("5.4")
@given(OBJECTS, VALUES, st.booleans())
def test_a_member_is_added_at_the_end(value: dict[str, Any], new: Any, spaced: bool) -> None:
    value.pop("cap", None)
    body = written(value, spaced=spaced, ascii_only=True)
    done = add_member(body, "cap", new)
    assert json.loads(done) == {**value, "cap": new}
    assert done.startswith(body.rstrip()[:-1])


@pytest.mark.wire("5.4")
def test_what_a_caller_sends_passes_unchanged_when_nothing_has_to_change() -> None:
    body = b'{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true,"x":1.10},"max_tokens":5}'
    assert write_request(body, read_request(body), model="m", cap=None) == body


@pytest.mark.wire("1b.3")
def test_the_usage_switch_keeps_the_other_options() -> None:
    body = b'{"model": "m", "stream": true, "stream_options": {"include_obfuscation": false, "include_usage": false}}'
    done = write_request(body, read_request(body), model="m", cap=None)
    assert done == (
        b'{"model": "m", "stream": true, "stream_options": {"include_obfuscation":false,"include_usage":true}}'
    )
    null = b'{"model": "m", "stream": true, "stream_options": null}'
    assert write_request(null, read_request(null), model="m", cap=None).endswith(
        b'"stream_options": {"include_usage":true}}'
    )
    without = b'{"model": "m", "stream": false}'
    assert write_request(without, read_request(without), model="m", cap=None) == without


@pytest.mark.wire("1c.1")
def test_a_cap_that_is_null_is_replaced_and_not_doubled() -> None:
    body = b'{"model": "m", "max_completion_tokens": null}'
    done = write_request(body, read_request(body), model="n", cap=4096)
    assert done == b'{"model": "n", "max_completion_tokens": 4096}'


@pytest.mark.wire("1c.1", "1c.2")
def test_the_newer_cap_wins() -> None:
    asked = read_request(b'{"model": "m", "max_completion_tokens": 7, "max_tokens": 9, "n": 3}')
    assert (asked.cap, asked.choices) == (7, 3)
