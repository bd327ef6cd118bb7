"""What fuzzing found, or reading for it: each was a wrong bill, a lost byte, or a worker that stood still."""

import json
import time
from typing import Any

import pytest

from gateway import quotes
from gateway.dialects.meter import MOST, Meter
from gateway.dialects.shape import Call
from ledger.money import MAX_NANOS
from tests import billing
from tests.corpus import SAMPLES, endpoint_of, form
from tests.fuzz.answers import PRICED

JSON, EVENTS = b"application/json", b"text/event-stream"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
STREAM = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}], "stream": True}


def meter_for(path: str, kind: bytes, body: dict[str, Any] | None = None) -> Meter:
    endpoint, target, query = endpoint_of(path)
    call = Call(json.dumps(body or {"model": "m", "input": "Hi"}).encode(), query=query, target=target)
    return endpoint.meter(endpoint.read(call), kind)


def fed(meter: Meter, *pieces: bytes) -> bytes:
    return b"".join([meter.feed(piece) for piece in pieces]) + meter.finish()


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


NOTHING: tuple[Any, ...] = ({}, {"total_tokens": 9}, {"prompt_tokens": "many"}, {"completion_tokens": 2**60})


@pytest.mark.wire("5.12")
@pytest.mark.parametrize("usage", NOTHING)
def test_text_with_usage_of_nothing_was_free(usage: Any) -> None:
    said = {"choices": [{"message": {"content": "Four words and more"}, "finish_reason": "stop"}], "usage": usage}
    meter = meter_for(CHAT, JSON, {**STREAM, "stream": False})
    fed(meter, json.dumps(said).encode())
    assert (meter.done, meter.usage(), meter.output_seen()) == (True, None, 5)
    endpoint, _, _ = endpoint_of(CHAT)
    body = json.dumps(STREAM).encode()
    settled = billing.bill(billing.ticket(PRICED, endpoint, endpoint.read(Call(body)), body), meter, bytes_out=1)
    assert settled.facts.estimated
    assert settled.facts.usage["output"] == 5


@pytest.mark.wire("5.12", "1b.11", "3b.7")
@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v1/embeddings", {"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 0, "total_tokens": 0}}),
        (
            "/gemini/v1/models/m:embedContent",
            {"embedding": {"values": [0.1]}, "usageMetadata": {"promptTokenCount": 0}},
        ),
    ],
)
def test_an_embedding_of_nothing_was_free(path: str, answer: dict[str, Any]) -> None:
    meter = meter_for(path, JSON)
    fed(meter, json.dumps(answer).encode())
    assert (meter.done, meter.usage()) == (True, None)


@pytest.mark.wire("5.12")
def test_a_count_that_no_answer_has_was_more_money_than_can_be_settled() -> None:
    """The script refuses such an amount, and a charge is tried again for as long as it is refused."""
    meter = meter_for("/v1/responses", JSON)
    fed(meter, b'{"output":[],"usage":{"input_tokens":9007199254740991,"output_tokens":7}}')
    assert meter.usage() == {"output": 7}
    endpoint, _, _ = endpoint_of("/v1/audio/translations")
    asked = endpoint.read(Call(form({"model": "m"}, ("file", 9)), b"multipart/form-data; boundary=----weir-0123456789"))
    meter = endpoint.meter(asked, JSON)
    fed(meter, b'{"text":"x","duration":2147483647}')
    assert meter.usage() is None
    turns = [{"type": "compaction", "input_tokens": MOST - 1}] * 300
    meter = meter_for(MESSAGES, JSON)
    fed(meter, json.dumps({"type": "message", "usage": {"input_tokens": 1, "iterations": turns}}).encode())
    assert meter.usage() == {"input_uncached": MOST}, "nor is a sum of counts more than a count"


@pytest.mark.wire("1c.2")
def test_a_request_for_more_answers_than_money_can_buy_was_our_error() -> None:
    """No script takes an amount of so many digits; what nobody can pay is a 402."""
    endpoint, _, _ = endpoint_of(CHAT)
    body = json.dumps({**STREAM, "n": 2**31 - 1, "max_tokens": 10**6}).encode()
    assert quotes.quote(PRICED.model, endpoint.read(Call(body)), len(body), 1_000_000).amounts == [MAX_NANOS]


@pytest.mark.wire("5.9", "1b.3")
def test_a_frame_without_usage_was_swallowed() -> None:
    """Azure begins with one: `choices` is empty, and what was found in the prompt is beside it."""
    first = b'data: {"choices": [], "prompt_filter_results": [{"prompt_index": 0}], "usage": null}\n\n'
    usage = event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 1})
    meter = meter_for(CHAT, EVENTS, STREAM)
    assert fed(meter, first, usage) == first
    assert meter.usage() == {"input_uncached": 3, "output": 1}


@pytest.mark.wire("5.1", "5.9")
def test_a_model_that_wrote_done_ended_the_stream() -> None:
    meter = meter_for(CHAT, EVENTS, STREAM)
    fed(meter, event(choices=[{"delta": {"content": "It ends with data: [DONE]"}}]))
    assert not meter.done
    for end in (b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b"data: [DONE]"):
        meter = meter_for(CHAT, EVENTS, STREAM)
        fed(meter, event(choices=[{"delta": {"content": "x"}}]), end)
        assert meter.done


def test_a_stream_that_was_not_called_one_was_free() -> None:
    """A server that sends events under another type: the whole stream was one piece, and the piece one block's beginning."""
    sample = next(sample for sample in SAMPLES if sample.name == "anthropic_messages_stream")
    for kind in (b"text/plain", b"", JSON):
        meter = meter_for(MESSAGES, kind, STREAM)
        assert fed(meter, sample.body) == sample.body
        assert meter.output_seen() > 0


@pytest.mark.wire("8.6", "8.7")
def test_subtitles_made_a_recording_longer_than_its_bytes() -> None:
    endpoint, _, _ = endpoint_of("/v1/audio/transcriptions")
    body = form({"model": "m", "response_format": "srt"}, ("file", 5_000))
    asked = endpoint.read(Call(body, b"multipart/form-data; boundary=----weir-0123456789"))
    meter = endpoint.meter(asked, b"text/plain")
    fed(meter, b"1\n00:00:00,000 --> 99:00:00,000\nHi\n\n")
    assert (meter.estimate() or {})["audio_seconds"] == asked.seconds == 10
    ticket = billing.ticket(PRICED, endpoint, asked, body)
    assert billing.bill(ticket, meter, bytes_out=1).cost_nanos <= ticket.admitted.amount_nanos


@pytest.mark.wire("5.11")
def test_an_event_in_many_pieces_was_read_from_its_beginning_with_each() -> None:
    meter = meter_for("/v1/images/generations", EVENTS, {"model": "m", "prompt": "x", "stream": True})
    body = b'data: {"type":"image_generation.partial_image","b64_json":"' + b"A" * 8_000_000 + b'"}\n\n'
    began = time.perf_counter()
    assert fed(meter, *(body[at : at + 1_000] for at in range(0, len(body), 1_000))) == body
    assert time.perf_counter() - began < 5, "it took a minute"


@pytest.mark.wire("6.9")
def test_a_body_of_almost_base64_held_a_worker_up() -> None:
    """32 MB of it, which any caller may send, took 54 s to guess the tokens of."""
    endpoint, _, _ = endpoint_of(CHAT)
    said = b"A" * 1_999 + b" "
    body = b'{"model":"m","messages":[{"content":[{"type":"image_url"}]}],"x":"' + said * 4_000 + b'"}'
    asked = endpoint.read(Call(body))
    began = time.perf_counter()
    assert quotes.estimate(body, asked) > len(said) * 900
    assert time.perf_counter() - began < 3
    for run, files in ((1_999, 0), (2_000, 1), (5_000, 1)):
        body = b'{"model":"m","image_url":"data:image/png;base64,' + b"A" * run + b'"}'
        rest = len(body) - run * files - (6 * files if files else 0)
        assert abs(quotes.estimate(body, asked) - (-(-rest // 4) + 1_500 * files)) <= 2


@pytest.mark.wire("5.11")
def test_names_without_a_meaning_were_kept_for_ever() -> None:
    meter = meter_for(MESSAGES, EVENTS, STREAM)
    for number in range(5_000):
        meter.feed(event(type="message_delta", usage={f"name_{number}": number, "server_tool_use": {f"n{number}": 1}}))
    tab: Any = meter._tab
    assert len(json.dumps(tab._usage)) < 100
