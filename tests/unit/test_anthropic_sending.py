"""What Anthropic is sent: what came, but for the name of the model and a cap that Weir set."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.anthropic.messages import CountTokens, Messages
from gateway.dialects.body import BadBody
from gateway.dialects.shape import Call, Outgoing


@pytest.mark.wire("5.4", "2a.2")
def test_what_is_sent_is_what_came() -> None:
    spaced = b'{ "model" :"m" ,"max_tokens":5, "temperature": 1.10, "messages":[ ] }'
    found = Messages().read(Call(spaced))
    assert Messages().write(Call(spaced), found, model="m", cap=None) == Outgoing("/v1/messages", spaced)
    outgoing = Messages().write(Call(spaced, query=b"x=1&beta=true"), found, model="claude-x", cap=None)
    assert outgoing == Outgoing("/v1/messages?beta=true", spaced.replace(b'"m"', b'"claude-x"'))
    assert Messages().write(Call(spaced, query=b"beta=truest"), found, model="m", cap=None).path == "/v1/messages"


@pytest.mark.wire("2c.1")
def test_a_cap_that_is_missing_is_added_and_a_null_one_replaced() -> None:
    without, null = b'{"model": "m", "messages": [] }', b'{"max_tokens" : null , "model": "m"}'
    for body, wanted in (
        (without, b'{"model": "m", "messages": [] ,"max_tokens":4096}'),
        (null, b'{"max_tokens" : 4096 , "model": "m"}'),
    ):
        assert Messages().write(Call(body), Messages().read(Call(body)), model="m", cap=4096).body == wanted


@pytest.mark.wire("1a.6", "2a.2")
def test_counting_is_free_and_holds_nothing() -> None:
    body = b'{"model": "m", "messages": []}'
    found = CountTokens().read(Call(body))
    assert CountTokens().free
    assert not Messages().free
    assert (found.writes, found.capped, found.cap) == (False, False, None)
    outgoing = CountTokens().write(Call(body, query=b"beta=true"), found, model="claude-x", cap=None)
    assert outgoing == Outgoing("/v1/messages/count_tokens?beta=true", b'{"model": "claude-x", "messages": []}')


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=6), inside, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(st.sampled_from(["messages", "system", "tools", "container", "metadata", "x"]), VALUES),
    st.booleans(),
)
def test_any_body_is_read_or_refused_and_written_with_nothing_lost(more: dict[str, Any], spaced: bool) -> None:
    whole = {"model": "m", **more}
    sent = Call(json.dumps(whole, indent=1 if spaced else None).encode())
    try:
        found = Messages().read(sent)
    except BadBody:
        return
    outgoing = Messages().write(sent, found, model="claude-x", cap=77)
    assert json.loads(outgoing.body) == {**whole, "model": "claude-x", "max_tokens": 77}
