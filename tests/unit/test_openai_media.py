"""Embeddings, moderations, images and audio: what a request asks for, which bytes go to the provider, and what an answer
without usage is taken for.
"""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.dialects.body import BadBody
from gateway.dialects.openai import audio, images, recordings
from gateway.dialects.openai.embeddings import Embeddings
from gateway.dialects.openai.moderations import Moderations
from gateway.dialects.shape import Asked, Call, Endpoint, Outgoing
from tests.unit.test_openai_fixtures import FORM_TYPE, fed, form, meter_for, splits

JSON_ENDPOINTS = [
    (Embeddings(), "/embeddings"),
    (Moderations(), "/moderations"),
    (images.ImageGenerations(), "/images/generations"),
    (images.ImageEdits(), "/images/edits"),
    (audio.Speech(), "/audio/speech"),
]
FORM_ENDPOINTS = [
    (images.ImageEdits(), "/images/edits"),
    (images.ImageVariations(), "/images/variations"),
    (audio.Transcriptions(), "/audio/transcriptions"),
    (audio.Translations(), "/audio/translations"),
]


def asked(endpoint: Endpoint, **body: Any) -> Asked:
    return endpoint.read(Call(json.dumps({"model": "m", **body}).encode()))


def form_call(*fields: tuple[str, str], file: bytes = b"x", name: str = "file") -> Call:
    """A form as Node's SDK sends it: the file comes first."""
    parts: list[tuple[str, bytes, str | None]] = [(each, value.encode(), None) for each, value in fields]
    return Call(form([(name, file, "a.bin"), *parts]), FORM_TYPE)


@pytest.mark.wire("5.4")
@pytest.mark.parametrize(("endpoint", "path"), JSON_ENDPOINTS)
def test_json_is_sent_as_it_came_but_for_the_model(endpoint: Endpoint, path: str) -> None:
    call = Call(b'{ "input": "x", "model": "m", "prompt": 1.10 }')
    found = endpoint.read(call)
    assert not found.capped
    for cap in (None, 4096):  # none has a field for a cap
        assert endpoint.write(call, found, model="m", cap=cap) == Outgoing(path, call.body)
        out = endpoint.write(call, found, model="their-name", cap=cap)
        assert out == Outgoing(path, b'{ "input": "x", "model": "their-name", "prompt": 1.10 }')


@pytest.mark.wire("1c.3", "5.4")
@pytest.mark.parametrize(("endpoint", "path"), FORM_ENDPOINTS)
def test_a_form_is_sent_as_it_came_but_for_the_model(endpoint: Endpoint, path: str) -> None:
    file = b"model\r\nm\r\n" + bytes(range(256))
    call = form_call(("model", "m"), ("prompt", "m"), file=file)
    found = endpoint.read(call)
    assert (found.model, found.by_reference, found.capped) == ("m", True, False)
    assert endpoint.write(call, found, model="m", cap=4096) == Outgoing(path, call.body)
    renamed = form_call(("model", "their-name"), ("prompt", "m"), file=file)
    assert endpoint.write(call, found, model="their-name", cap=None) == Outgoing(path, renamed.body)


@pytest.mark.wire("1c.4")
@pytest.mark.parametrize("endpoint", [endpoint for endpoint, _ in [*JSON_ENDPOINTS, *FORM_ENDPOINTS]])
def test_the_model_is_required_although_the_api_makes_it_optional(endpoint: Endpoint) -> None:
    takes_forms = any(endpoint is other for other, _ in FORM_ENDPOINTS)
    call = form_call(("prompt", "x")) if takes_forms else Call(b'{"input":"x"}')
    with pytest.raises(BadBody, match="model"):
        endpoint.read(call)


@pytest.mark.wire("6.14")
@pytest.mark.parametrize("endpoint", [images.ImageVariations(), audio.Transcriptions(), audio.Translations()])
def test_only_forms_are_read_where_there_is_a_file(endpoint: Endpoint) -> None:
    with pytest.raises(BadBody, match=r"multipart/form-data"):
        endpoint.read(Call(b'{"model":"m"}'))


@pytest.mark.wire("1b.11", "8.2")
@pytest.mark.parametrize("endpoint", [Embeddings(), Moderations()])
def test_what_only_reads_writes_nothing(endpoint: Endpoint) -> None:
    found = asked(endpoint, input=["a", "b"])
    assert (found.writes, found.by_reference, found.choices) == (False, False, 1)
    assert asked(endpoint, input=[{"type": "image_url", "image_url": {"url": "https://example.com"}}]).by_reference


@pytest.mark.wire("1c.2")
def test_every_picture_is_held_for() -> None:
    generations, edits = images.ImageGenerations(), images.ImageEdits()
    found = asked(generations, prompt="x", n=4, stream=True, partial_images=3)
    assert replace(found, parsed=None) == Asked(model="m", streamed=True, choices=4, capped=False)
    assert asked(generations, prompt="x").choices == 1
    call = form_call(("model", "m"), ("n", "3"), ("stream", "true"), name="image[]")
    assert replace(edits.read(call), parsed=None) == Asked(
        model="m", streamed=True, choices=3, by_reference=True, capped=False
    )
    with pytest.raises(BadBody, match="'n'"):
        edits.read(form_call(("model", "m"), ("n", "-1")))
    with pytest.raises(BadBody, match="'n'"):
        asked(generations, n=0)


@pytest.mark.wire("6h.1", "8.2")
def test_pictures_that_json_refers_to() -> None:
    edits = images.ImageEdits()
    found = asked(edits, prompt="x", images=[{"image_url": "https://example.com/a.png"}])
    assert (found.by_reference, found.stored) == (True, None)
    assert asked(edits, prompt="x").by_reference
    assert asked(edits, prompt="x", images=[{"file_id": "file-1"}]).stored == "file_id"
    assert asked(edits, prompt="x", images=[], mask={"file_id": "file-1"}).stored == "file_id"
    assert asked(images.ImageGenerations(), prompt="x", image={"url": "https://example.com"}).by_reference


@pytest.mark.wire("5.2")
def test_speech_is_streamed_in_events_only_where_that_is_asked_for() -> None:
    speech = audio.Speech()
    found = asked(speech, input="Hello", voice="alloy")
    assert replace(found, parsed=None) == Asked(model="m", capped=False)
    assert asked(speech, input="Hello", stream_format="sse").streamed
    assert not asked(speech, input="Hello", stream_format="audio").streamed
    with pytest.raises(BadBody, match="'input'"):
        asked(speech, input=["Hello"])


@pytest.mark.wire("1b.9")
@pytest.mark.parametrize(
    ("response_format", "bytes_a_token"),
    [(None, 150), ("mp3", 150), ("opus", 150), ("aac", 150), ("flac", 150), ("wav", 2400), ("pcm", 2400)],
)
def test_sound_stands_for_tokens_by_its_format(response_format: str | None, bytes_a_token: int) -> None:
    request = {"json": {"model": "m", "input": "abc", "response_format": response_format}}
    for tokens, size in ((0, 0), (1, 1), (1, bytes_a_token), (2, bytes_a_token + 1), (10, 10 * bytes_a_token)):
        meter = meter_for("/v1/audio/speech", content_type="audio/x", request=request)
        assert not meter.done
        assert fed(meter, [bytes(size)]) == bytes(size)
        assert (meter.done, meter.usage(), meter.output_seen()) == (True, None, tokens)
        estimate = meter.estimate() or {}
        assert (estimate["input_uncached"], estimate.get("output", 0)) == (3, tokens)
        # A lower bound while it lasts: no format has more bytes a token than sound as it is.
        assert meter.content_frames == size // 2400


@pytest.mark.parametrize(("letters", "tokens"), [("", 0), ("A", 1), ("AAAA", 1), ("A" * 3200, 1), ("A" * 3204, 2)])
def test_sound_in_events_stands_for_tokens_and_none_of_it_for_nothing(letters: str, tokens: int) -> None:
    request = {"json": {"model": "m", "input": "abc", "response_format": "pcm", "stream_format": "sse"}}
    meter = meter_for("/v1/audio/speech", content_type="text/event-stream", request=request)
    frame = b'data: {"type":"speech.audio.delta","audio":"%b"}\n\n' % letters.encode()
    assert fed(meter, [frame]) == frame
    assert (meter.usage(), meter.output_seen()) == (None, tokens)


@pytest.mark.wire("8.6")
@pytest.mark.parametrize(
    ("size", "most", "likely"),
    [(0, 0, 0), (1, 1, 1), (500, 1, 1), (501, 2, 1), (8001, 17, 2), (7_200_000, 14_400, 900), (10**9, 14_400, 14_400)],
)
def test_seconds_are_bounded_by_the_bytes_of_a_recording(size: int, most: int, likely: int) -> None:
    if size > 10**7:  # as if it were so long: the bytes are not looked at
        huge = form_call(("model", "m"), file=b"x")
        found = audio.Transcriptions().read(huge)
        part = found.parsed.parts[0]._replace(end=found.parsed.parts[0].start + size)
        longer = found.parsed._replace(parts=(part,))
        assert (recordings.most_seconds(longer), recordings.likely_seconds(longer)) == (most, likely)
        return
    found = audio.Transcriptions().read(form_call(("model", "m"), file=bytes(size)))
    assert (found.seconds, recordings.likely_seconds(found.parsed)) == (most, likely)


def wav(bytes_a_second: int, size: int) -> bytes:
    """A WAV file of so many bytes."""
    head = (
        b"RIFF"
        + struct.pack("<I", size - 8)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8000, bytes_a_second, 2, 16)
    )
    return head.ljust(size, b"\0")


@pytest.mark.wire("1b.8", "8.6")
def test_a_wav_file_says_how_long_it_is() -> None:
    read = audio.Transcriptions().read
    found = read(form_call(("model", "m"), file=wav(16_000, 64_001)))
    assert (found.seconds, recordings.likely_seconds(found.parsed)) == (129, 5)
    # What it says is a guess: it is never above the bound, and nothing is divided by it if it says nothing.
    for forged in (1, 0):
        found = read(form_call(("model", "m"), file=wav(forged, 64_001)))
        assert recordings.likely_seconds(found.parsed) == (129 if forged else 9)
    assert recordings.likely_seconds(read(form_call(("model", "m"), file=wav(16_000, 64_001)[:20])).parsed) == 1


@pytest.mark.wire("1b.8", "8.7")
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999)), min_size=1))
def test_subtitles_last_until_the_last_of_them_ends(ends: list[tuple[int, int, int, int]]) -> None:
    cues = [f"1\n00:00:00,000 --> {h:02}:{m:02}:{s:02},{ms:03}\nText --> 99:99\n\n" for h, m, s, ms in ends]
    longest = max(-(-((h * 60 + m) * 60_000 + s * 1000 + ms) // 1000) for h, m, s, ms in ends)
    body = "".join(cues).encode()
    request = {"form": {"model": "m"}, "file": {"name": "file", "size": 8000}}
    for pieces in ([body], [body[n : n + 7] for n in range(0, len(body), 7)]):
        meter = meter_for("/v1/audio/transcriptions", content_type="text/plain", request=request)
        assert fed(meter, pieces) == body
        assert (meter.estimate() or {})["audio_seconds"] == (min(longest, 16) or 1), "8,000 bytes are 16 s at most"


@pytest.mark.wire("1b.8")
def test_no_subtitle_lasts_longer_than_a_recording_can() -> None:
    assert recordings.last_cue_end(b"--> 999:59:59,999") == (14_400, b"--> 999:59:59,999")
    assert recordings.last_cue_end(b"--> 9999999999:59:59,999")[0] == 0


@pytest.mark.wire("1b.8")
def test_an_answer_without_an_end_of_its_own_is_whole_when_the_connection_says_so() -> None:
    request = {"form": {"model": "m"}, "file": {"name": "file", "size": 1}}
    for pieces in splits(b"One, two."):
        meter = meter_for("/v1/audio/transcriptions", content_type="text/plain", request=request)
        for piece in pieces:
            assert meter.feed(piece) == piece
            assert not meter.done
        assert meter.finish() == b""
        assert (meter.done, meter.usage(), meter.output_seen()) == (True, None, 3)


@pytest.mark.wire("5.12")
@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/v1/embeddings", {}),
        ("/v1/moderations", {}),
        ("/v1/images/generations", {"json": {"model": "m"}}),
        ("/v1/audio/speech", {"json": {"model": "m", "input": "x"}}),
        ("/v1/audio/transcriptions", {"form": {"model": "m"}, "file": {"name": "file", "size": 1}}),
    ],
)
def test_damaged_answers_do_not_break_the_meter(path: str, request_: dict[str, Any]) -> None:
    junk = [b"", b"null", b"[]", b"{", b"\xff\xfe", b"data: {}\n\n", b"data: x"]
    junk += [
        b'{"usage":%b,"data":%b,"duration":%b}' % (value, value, value) for value in (b"5", b'"x"', b"null", b"-1")
    ]
    for body in junk:
        for content_type in ("application/json", "text/event-stream", "application/octet-stream"):
            meter = meter_for(path, content_type=content_type, request=request_)
            assert fed(meter, [body]) == body
            usage = meter.usage()
            assert usage is None or set(usage) <= {"requests", "audio_seconds"}


@pytest.mark.wire("1b.8")
@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (2, 2),
        (2.0, 2),
        (2.01, 3),
        ("8.47", 9),
        ("8", 8),
        (0, 0),
        (-1, 0),
        (True, 0),
        ("nan", 0),
        ("1e9", 0),
        (10**12, 0),
    ],
)
def test_durations_that_are_written_in_other_ways(duration: Any, seconds: int) -> None:
    request = {"form": {"model": "m"}, "file": {"name": "file", "size": 1}}
    body = json.dumps({"text": "x", "duration": duration}).encode()
    meter = meter_for("/v1/audio/translations", request=request)
    assert fed(meter, [body]) == body
    assert meter.usage() == ({"audio_seconds": seconds} if seconds else None)
