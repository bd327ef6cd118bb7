"""Whatever Anthropic reports, the buckets add up to its totals: nothing is billed twice, and nothing is lost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.meter import Meter
from ledger.price_tables import INPUT_BUCKETS
from tests.unit.test_anthropic_fixtures import fed, meter_for

COUNTS = st.integers(0, 10**7)
MAYBE = st.none() | COUNTS
TOTALS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def metered(answer: dict[str, Any]) -> dict[str, Any]:
    meter = meter_for("/v1/messages", "application/json")
    body = json.dumps({"type": "message", "model": "m", **answer}).encode()
    assert fed(meter, [body]) == body
    usage = meter.usage()
    assert usage is not None
    assert all(usage.values()), "zero means absent"
    return usage


def streamed(*events: dict[str, Any]) -> Meter:
    meter = meter_for("/v1/messages", "text/event-stream")
    frames = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    assert fed(meter, frames) == b"".join(frames)
    return meter


def inputs(usage: dict[str, Any]) -> int:
    return sum(usage.get(name, 0) for name in INPUT_BUCKETS)


@st.composite
def parts(draw: st.DrawFn) -> dict[str, Any]:
    """One report, as the totals and the iterations have it: with or without a split, which may be short of its total."""
    short, long, more = draw(COUNTS), draw(COUNTS), draw(st.just(0) | COUNTS)
    split = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}
    return {
        "input_tokens": draw(COUNTS),
        "cache_read_input_tokens": draw(COUNTS),
        "cache_creation_input_tokens": short + long + more,
        "output_tokens": draw(COUNTS),
        **({"cache_creation": split} if draw(st.booleans()) else {}),
    }


@pytest.mark.wire("2b.1", "2b.2")
@given(parts())
def test_input_is_the_sum_of_three(usage: dict[str, Any]) -> None:
    found = metered({"usage": {**usage, "output_tokens_details": {"thinking_tokens": usage["output_tokens"] // 2}}})
    assert inputs(found) == sum(usage[name] for name in TOTALS)
    assert found.get("output", 0) == usage["output_tokens"]
    assert found.get("output_reasoning", 0) <= found.get("output", 0)
    split = usage.get("cache_creation")
    if split is None:
        assert found.get("cache_write", 0) == usage["cache_creation_input_tokens"]
    else:
        assert "cache_write" not in found
        assert found.get("cache_write_5m", 0) == split["ephemeral_5m_input_tokens"]
        assert found.get("cache_write_1h", 0) >= split["ephemeral_1h_input_tokens"]


@pytest.mark.wire("2b.5")
@given(parts(), st.lists(st.tuples(st.sampled_from(["compaction", "advisor_message", "message"]), parts()), max_size=4))
def test_what_the_totals_leave_out_is_added_once(usage: dict[str, Any], entries: list[tuple[str, Any]]) -> None:
    iterations = [{"type": kind, **part} for kind, part in entries]
    added = [part for kind, part in entries if kind != "message"]
    found = metered({"usage": {**usage, "iterations": iterations}})
    assert inputs(found) == sum(part[name] for part in (usage, *added) for name in TOTALS)
    assert found.get("output", 0) == sum(part["output_tokens"] for part in (usage, *added))


@pytest.mark.wire("2b.3", "2b.4")
@given(
    parts(), st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys((*TOTALS, "output_tokens"), MAYBE)), max_size=4)
)
def test_deltas_replace_field_by_field(first: dict[str, Any], deltas: list[dict[str, Any]]) -> None:
    served = {"service_tier": "standard", "speed": "fast", "inference_geo": "us"}
    begin = {"type": "message_start", "message": {"model": "m", "usage": {**first, **served}}}
    meter = streamed(begin, *({"type": "message_delta", "delta": {}, "usage": usage} for usage in deltas))
    last = dict(first)
    for usage in deltas:
        last |= {name: value for name, value in usage.items() if value is not None}
    found = meter.usage()
    assert found is not None
    split = first.get("cache_creation", {})
    written = max(last["cache_creation_input_tokens"], sum(split.values()))
    assert inputs(found) == last["input_tokens"] + last["cache_read_input_tokens"] + written
    assert found.get("output", 0) == last["output_tokens"]
    assert {name: found[name] for name in served} == served
    assert not meter.done


@pytest.mark.wire("2b.3", "5.5")
@given(st.lists(COUNTS, min_size=1, max_size=5))
def test_usage_on_the_way_is_never_more_than_at_the_end(outputs: list[int]) -> None:
    """A stream is stopped at its hold on what was reported so far (design.md section 4): that must be a lower bound."""
    growing = sorted(outputs)
    meter = meter_for("/v1/messages", "text/event-stream")
    begin = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 3, "output_tokens": 0}}}
    events = [begin, *({"type": "message_delta", "usage": {"output_tokens": output}} for output in growing)]
    seen = []
    for event in events:
        meter.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
        seen.append((meter.usage() or {}).get("output", 0))
    assert seen == sorted(seen)
    assert seen[-1] == growing[-1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["type", "message", "usage", "iterations", "cache_creation", "server_tool_use", "input_tokens"])
KINDS = st.sampled_from(["message", "message_start", "message_delta", "error", "compaction"])


@pytest.mark.wire("5.12")
@given(st.dictionaries(NAMES, KINDS | JSON | st.dictionaries(NAMES, JSON | KINDS, max_size=4), max_size=5))
def test_nothing_that_an_answer_says_breaks_the_meter(document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    for content_type, data in (("application/json", body), ("text/event-stream", b"data: " + body + b"\n\n")):
        meter = meter_for("/v1/messages", content_type)
        assert fed(meter, [data]) == data
        assert all((meter.usage() or {}).values())


@pytest.mark.wire("5.12")
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"7", b"\xff\xfe", b"{", b'{"usage": 5}'])
def test_damaged_answers(body: bytes) -> None:
    for content_type, data in (("application/json", body), ("text/event-stream", b"data: " + body + b"\n\n")):
        meter = meter_for("/v1/messages", content_type)
        assert fed(meter, [data]) == data
        assert meter.usage() is None


def test_what_a_model_wrote_is_counted_and_what_tools_brought_is_not() -> None:
    def block(**delta: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": 0, "delta": delta}

    result = {"type": "web_search_tool_result", "content": [{"type": "text", "text": "found elsewhere"}]}
    meter = streamed(
        {"type": "content_block_start", "index": 0, "content_block": result},
        block(type="text_delta", text="Hello"),
        block(type="thinking_delta", thinking="hm, "),
        block(type="input_json_delta", partial_json='{"a": 1}'),
        block(type="compaction_delta", content="so far"),
        block(type="signature_delta", signature="x" * 400),
        block(type="text_delta", text=""),
        {"type": "ping"},
    )
    written = len("Hello") + len("hm, ") + len(rb"{\"a\": 1}") + len("so far")
    assert (meter.content_frames, meter.content_bytes) == (4, written)
    assert meter.output_seen() == -(-written // 4)
