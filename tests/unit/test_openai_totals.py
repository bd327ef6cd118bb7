"""Whatever a provider reports, the buckets add up to its totals: nothing is billed twice, and nothing is lost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.price_tables import INPUT_BUCKETS
from tests.unit.test_openai_fixtures import fed, meter_for

COUNTS = st.integers(0, 10**7)


def metered(
    path: str, answer: dict[str, Any], *, event: str | None = None, request: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The usage of an answer, whole or as the one event of a stream."""
    body, content_type = json.dumps(answer).encode(), "application/json"
    if event is not None:
        body, content_type = b"data: " + json.dumps({"type": event, **answer}).encode() + b"\n\n", "text/event-stream"
    meter = meter_for(path, content_type=content_type, request=request)
    assert fed(meter, [body]) == body
    usage = meter.usage() or {}  # a report of nothing but zeros may be none
    assert all(usage.values()), "zero means absent"
    return usage


def inputs(usage: dict[str, Any]) -> int:
    return sum(usage.get(name, 0) for name in INPUT_BUCKETS)


@pytest.mark.wire("1b.1", "1b.4")
@given(st.lists(COUNTS, min_size=5, max_size=5), COUNTS, st.data(), st.booleans())
def test_responses(parts: list[int], output: int, data: st.DataObject, streamed: bool) -> None:
    plain, cached, loose, half_hour, half_day = parts
    reasoning = data.draw(st.integers(0, output))
    split = {"ttl_30m_tokens": half_hour, "ttl_12h_tokens": half_day}
    details = {
        "cached_tokens": cached,
        "cache_write_tokens": loose + half_hour + half_day,
        "cache_write_tokens_details": split,
    }
    reported = {
        "input_tokens": sum(parts),
        "input_tokens_details": details,
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
    }
    answer: dict[str, Any] = {"usage": reported}
    if streamed:
        usage = metered("/v1/responses", {"response": answer}, event="response.completed")
    else:
        usage = metered("/v1/responses", answer)
    assert inputs(usage) == sum(parts)
    assert usage.get("output", 0) == output
    assert usage.get("output_reasoning", 0) == reasoning
    assert usage.get("input_uncached", 0) == plain
    assert usage.get("cache_write", 0) == loose


@pytest.mark.wire("5.12")
@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_responses_that_contradict_themselves_are_never_below_zero(
    prompt: int, cached: int, written: int, split: int
) -> None:
    details = {
        "cached_tokens": cached,
        "cache_write_tokens": written,
        "cache_write_tokens_details": {"ttl_12h_tokens": split},
    }
    usage = metered("/v1/responses", {"usage": {"input_tokens": prompt, "input_tokens_details": details}})
    assert min(usage.values(), default=0) >= 0
    assert inputs(usage) >= prompt


@pytest.mark.wire("1b.1", "1b.11")
@given(COUNTS, COUNTS, COUNTS)
def test_completions_and_embeddings(plain: int, cached: int, output: int) -> None:
    reported = {
        "prompt_tokens": plain + cached,
        "completion_tokens": output,
        "total_tokens": plain + cached + output,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    usage = metered("/v1/completions", {"choices": [{"text": "x"}], "usage": reported})
    assert inputs(usage) + usage.get("output", 0) == reported["total_tokens"]
    usage = metered("/v1/embeddings", {"data": [], "usage": {"prompt_tokens": plain, "total_tokens": plain}})
    assert inputs(usage) == plain
    assert "output" not in usage


@pytest.mark.wire("1b.7", "1c.5")
@given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS), min_size=1, max_size=4), st.none() | st.tuples(COUNTS, COUNTS))
def test_images(pictures: list[tuple[int, int, int]], author: tuple[int, int] | None) -> None:
    reported = [
        {"input_tokens": words + seen, "input_tokens_details": {"image_tokens": seen}, "output_tokens": drawn}
        for words, seen, drawn in pictures
    ]
    answer: dict[str, Any] = {"data": [{}], "usage": reported[0]}
    wanted_in, wanted_out = reported[0]["input_tokens"], reported[0]["output_tokens"]
    if author is not None:
        answer["svg_usage"] = {"input_tokens": author[0], "output_tokens": author[1], "model": "other"}
        wanted_in, wanted_out = wanted_in + author[0], wanted_out + author[1]  # type: ignore[operator]
    usage = metered("/v1/images/generations", answer, request={"json": {"model": "m"}})
    assert (inputs(usage), usage.get("output", 0)) == (wanted_in, wanted_out)
    assert usage.get("output_image", 0) == pictures[0][2]
    frames = [{"type": "image_generation.completed", "usage": each} for each in reported]
    body = b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames)
    request = {"json": {"model": "m", "n": len(pictures)}}
    meter = meter_for("/v1/images/generations", content_type="text/event-stream", request=request)
    assert fed(meter, [body]) == body
    usage = meter.usage() or {}
    assert inputs(usage) == sum(words + seen for words, seen, _ in pictures)
    assert usage.get("output", 0) == usage.get("output_image", 0) == sum(drawn for _, _, drawn in pictures)
    assert meter.done


@pytest.mark.wire("1b.8", "1b.9")
@given(COUNTS, COUNTS, COUNTS, st.floats(0.001, 10**6))
def test_audio(words: int, heard: int, output: int, seconds: float) -> None:
    request = {"form": {"model": "m"}, "file": {"name": "file", "size": 9}}
    tokens = {
        "type": "tokens",
        "input_tokens": words + heard,
        "input_token_details": {"audio_tokens": heard, "text_tokens": words},
        "output_tokens": output,
    }
    usage = metered("/v1/audio/transcriptions", {"text": "x", "usage": tokens}, request=request)
    assert (inputs(usage), usage.get("input_audio", 0), usage.get("output", 0)) == (words + heard, heard, output)
    assert "audio_seconds" not in usage
    lasted = {"type": "duration", "seconds": seconds}
    usage = metered("/v1/audio/transcriptions", {"text": "x", "usage": lasted}, request=request)
    assert set(usage) == {"audio_seconds"}
    assert seconds <= usage["audio_seconds"] < seconds + 1
    spoken = {"usage": {"input_tokens": words, "output_tokens": output}}
    usage = metered(
        "/v1/audio/speech", spoken, event="speech.audio.done", request={"json": {"model": "m", "input": "x"}}
    )
    assert (inputs(usage), usage.get("output", 0), usage.get("output_audio", 0)) == (words, output, output)
