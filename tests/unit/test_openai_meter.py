"""The OpenAI meter: every fixture metered exactly, at every split of its bytes; bytes forwarded as they came."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.dialects.meter import Events, Meter, Whole
from gateway.dialects.openai.chat import ChatTab

FIXTURES = Path(__file__).parent.parent / "fixtures"
CHAT = sorted(
    path for path in FIXTURES.glob("*.expect.json") if json.loads(path.read_text())["format"] == "openai.chat"
)
NAMES = [path.name.removesuffix(".expect.json") for path in CHAT]


def fixture(name: str) -> tuple[dict[str, Any], bytes, bool]:
    expect = json.loads((FIXTURES / f"{name}.expect.json").read_text())
    body = (FIXTURES / expect["body"]).read_bytes()
    return expect, body, expect["http"]["content_type"].startswith("text/event-stream")


def splits(body: bytes) -> Iterator[list[bytes]]:
    """The body whole, cut in two at every byte, and byte by byte."""
    yield [body]
    for at in range(1, len(body)):
        yield [body[:at], body[at:]]
    yield [body[n : n + 1] for n in range(len(body))]


def metered(pieces: list[bytes], *, streamed: bool, hide: bool) -> tuple[Meter, bytes]:
    meter = Meter(ChatTab(), Events() if streamed else Whole(), hide=hide)
    out = b"".join([meter.feed(piece) for piece in pieces])
    return meter, out + meter.finish()


def test_there_are_fixtures() -> None:
    assert {"openai_chat", "openai_chat_stream", "openai_chat_stream_no_usage"} <= set(NAMES)


@pytest.mark.wire("1b.1", "1b.2", "1b.6", "5.3", "5.4")
@pytest.mark.parametrize("name", [name for name in NAMES if "error" not in name])
def test_fixture_at_every_split(name: str) -> None:
    expect, body, streamed = fixture(name)
    wanted = dict(expect["meter"] or {})
    model = wanted.pop("model", None)
    for pieces in splits(body):
        meter, out = metered(pieces, streamed=streamed, hide=False)
        assert out == body
        assert (meter.usage() or {}) == wanted
        assert expect["meter"] is None or meter.model == model


@pytest.mark.wire("1b.3", "5.4")
def test_the_usage_frame_is_swallowed_and_nothing_else() -> None:
    _, body, _ = fixture("openai_chat_stream")
    frames = body.split(b"\n\n")
    kept = b"\n\n".join(frame for frame in frames if b'"choices":[]' not in frame)
    for pieces in splits(body):
        meter, out = metered(pieces, streamed=True, hide=True)
        assert out == kept
        usage = meter.usage()
        assert usage is not None
        assert usage["output"] == 45


@pytest.mark.wire("1b.1")
def test_the_buckets_add_up_to_the_providers_total() -> None:
    expect, body, _ = fixture("openai_chat")
    meter, _ = metered([body], streamed=False, hide=False)
    usage = meter.usage() or {}
    total = json.loads(body)["usage"]["total_tokens"]
    parts = [usage.get(name, 0) for name in ("input_uncached", "cache_read", "cache_write", "output")]
    assert sum(int(part) for part in parts) == total
    assert expect["meter"]["output"] == usage["output"]


@pytest.mark.wire("5.3")
@pytest.mark.parametrize("ending", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"])
def test_every_line_ending_and_none_other(ending: bytes) -> None:
    """U+2028 and U+0085 are no line ends inside JSON (wire.md 5)."""
    content = "a\u2028b\u0085c".encode()
    line = b"\r\n" if b"\r\n" in ending else ending[:1]
    frame = b'data: {"choices":[{"delta":{"content":"' + content + b'"}}]}' + ending
    usage = b"event: x" + line + b'data: {"choices":[],' + line
    usage += b'data: "usage": {"prompt_tokens": 3, "completion_tokens": 2}}' + ending
    body = frame + usage + b"data: [DONE]" + ending
    for pieces in splits(body):
        meter, out = metered(pieces, streamed=True, hide=False)
        assert out == body
        assert meter.usage() == {"input_uncached": 3, "output": 2}
        assert meter.done
        assert meter.content_frames == 1


@pytest.mark.wire("1b.2")
def test_the_last_usage_present_replaces() -> None:
    def chunk(output: int | None) -> bytes:
        usage = None if output is None else {"prompt_tokens": 1, "completion_tokens": output}
        return b"data: " + json.dumps({"choices": [{"delta": {}}], "usage": usage}).encode() + b"\n\n"

    meter, _ = metered([chunk(1), chunk(5), chunk(None)], streamed=True, hide=True)
    assert meter.usage() == {"input_uncached": 1, "output": 5}


@pytest.mark.parametrize("first", [b'"usage":null,', b'"usage": null,', b'"x":{"usage":null},', b""])
def test_usage_is_found_behind_usage_that_is_null(first: bytes) -> None:
    """A server may say it in two places of one frame."""
    used = b'"usage":{"prompt_tokens":1,"completion_tokens":5}'
    frame = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],' + first + used + b"}\n\n"
    meter, _ = metered([frame], streamed=True, hide=False)
    assert meter.usage() == {"input_uncached": 1, "output": 5}


def test_what_was_written_is_counted_and_the_json_around_it_is_not() -> None:
    words = ["Hello", " there", '"quoted"', "é", ""]
    frames = [
        b"data: "
        + json.dumps({"id": "x" * 200, "choices": [{"delta": {"content": w}}]}, ensure_ascii=False).encode()
        + b"\n\n"
        for w in words
    ]
    meter, _ = metered(frames, streamed=True, hide=True)
    written = sum(len(json.dumps(word, ensure_ascii=False).encode()) - 2 for word in words)
    assert (meter.content_frames, meter.content_bytes) == (4, written)
    assert meter.output_seen() == max(4, -(-written // 4))
    tools = b'{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"arguments":"{\\"a\\": 1}"}}]}}]}'
    meter, _ = metered([tools], streamed=False, hide=False)
    assert meter.content_bytes == len(rb"{\"a\": 1}")


@pytest.mark.wire("5.12")
def test_damaged_answers_do_not_break_the_meter() -> None:
    for body in (b"", b"null", b"[]", b'{"usage": 5}', b'{"usage": {"prompt_tokens": "many"}}', b"\xff\xfe", b"{"):
        meter, out = metered([body], streamed=False, hide=False)
        assert out == body
        assert not meter.usage()
        meter, _ = metered([b"data: " + body + b"\n\n"], streamed=True, hide=True)
        assert not meter.usage()
