"""OpenAI audio: text to speech, and recordings to text (wire.md sections 1a, 1b and 1c).

Much of it is answered without usage: sound, plain text and subtitles have no place for it. Those answers are estimated
from the constants below, which are on the side of the larger bill; what a provider reports always comes first.
"""

import math
import re
from typing import Any, ClassVar

from gateway.dialects import body as json_body
from gateway.dialects import fields, multipart
from gateway.dialects.cutter import Cutter
from gateway.dialects.meter import MOST, Events, Meter, Tab, Usage, Whole, buckets, count, inner, text
from gateway.dialects.openai import recordings
from gateway.dialects.shape import Asked, Call, Outgoing

# Speech has 20 tokens a second. Bytes of one: of 24 kHz, 16 bit, as it is; and of the thinnest codec, at 24 kbit/s.
RAW_BYTES_A_TOKEN, CODED_BYTES_A_TOKEN = 2_400, 150
_RAW_FORMATS = ("wav", "pcm")
# Recordings have 10 tokens a second.
TOKENS_A_SECOND = 10
_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,30})?")


class Speech:
    """POST /audio/speech: JSON in; sound out, or events with sound and usage."""

    name = "audio.speech"
    free = False

    def read(self, call: Call) -> Asked:
        parsed = json_body.parse_object(call.body)
        fields.word(parsed, "input")
        return Asked(
            model=fields.model(parsed),
            streamed=fields.word(parsed, "stream_format") == "sse",
            capped=False,
            parsed=parsed,
        )

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        del cap  # there is no field for one
        return Outgoing("/audio/speech", fields.put_model(call.body, asked.model, model))

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        raw = asked.parsed.get("response_format") in _RAW_FORMATS
        bytes_a_token = RAW_BYTES_A_TOKEN if raw else CODED_BYTES_A_TOKEN
        characters = len(asked.parsed.get("input") or "")
        if content_type.startswith(b"text/event-stream"):
            return Meter(SpeechEventsTab(characters, bytes_a_token), Events())
        return Unmarked(SpeechTab(characters, bytes_a_token))


class Transcriptions:
    """POST /audio/transcriptions: a form, in which Node's SDK sends the recording before the model's name."""

    name = "audio.transcriptions"
    free = False
    _path = "/audio/transcriptions"

    def read(self, call: Call) -> Asked:
        form = multipart.parse(call.body, call.content_type)
        return Asked(
            model=form.model(),
            streamed=form.flag("stream"),
            by_reference=True,  # tokens go by the second, not by the byte
            seconds=recordings.most_seconds(form),
            capped=False,
            parsed=form,
        )

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        del cap  # there is no field for one
        same = asked.model == model
        return Outgoing(self._path, call.body if same else multipart.replace_field(asked.parsed, "model", model))

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        likely_seconds = recordings.likely_seconds(asked.parsed)
        if content_type.startswith(b"text/event-stream"):
            return Meter(TranscriptEventsTab(likely_seconds), Events())
        if b"json" in content_type:
            return Meter(TranscriptTab(likely_seconds), Whole())
        return Unmarked(PlainTranscriptTab(likely_seconds, asked.seconds))


class Translations(Transcriptions):
    """POST /audio/translations."""

    name = "audio.translations"
    _path = "/audio/translations"


class _Pieces(Cutter):
    """A cutter of what has no documents in it."""

    def feed(self, data: bytes) -> list[bytes]:
        return [data] if data else []

    def rest(self) -> bytes:
        return b""


class Unmarked(Meter):
    """Reads an answer that does not say where it ends: it is whole when the connection says so."""

    def __init__(self, tab: Tab) -> None:
        super().__init__(tab, _Pieces())

    def finish(self) -> bytes:
        self._tab.done = True
        return super().finish()


class SpeechTab(Tab):
    """Sound as it is. Nothing is reported, so its bytes stand for tokens, and the input is counted in characters: what
    older models are priced by, and more than newer ones count.
    """

    def __init__(self, characters: int, bytes_a_token: int) -> None:
        super().__init__()
        self._characters = characters
        self._bytes_a_token = bytes_a_token
        self._sound = 0

    def usage(self) -> Usage | None:
        return None

    def estimate(self) -> Usage | None:
        tokens = -(-self._sound // self._bytes_a_token)
        return buckets(input_uncached=self._characters, output=tokens, output_audio=tokens)

    def pass_over(self, piece: bytes) -> None:
        self._hear(len(piece))

    def _hear(self, sound: int) -> None:
        self._sound += sound
        self.content_frames = self._sound // RAW_BYTES_A_TOKEN
        self.content_bytes = -(-4 * self._sound // self._bytes_a_token)


class SpeechEventsTab(SpeechTab):
    """Sound in events, in base64, and usage in the last one. All that is written is sound."""

    marks: ClassVar[tuple[bytes, ...]] = (b"speech.audio.done",)
    written: ClassVar[re.Pattern[bytes]] = re.compile(rb'"audio"\s*:\s*"([^"]*)"')

    def __init__(self, characters: int, bytes_a_token: int) -> None:
        super().__init__(characters, bytes_a_token)
        self._usage: dict[str, Any] | None = None

    def read(self, document: dict[str, Any]) -> bool:
        if document.get("type") == "speech.audio.done":
            self.done = True
            found = document.get("usage")
            self._usage = found if isinstance(found, dict) else None
        return False

    def usage(self) -> Usage | None:
        if self._usage is None:
            return None
        output = count(self._usage, "output_tokens")
        return buckets(input_uncached=count(self._usage, "input_tokens"), output=output, output_audio=output)

    def pass_over(self, piece: bytes) -> None:
        # Rounded up: a single letter of base64 is no sound, but it is no reason to bill nothing.
        self._hear(sum(-(-len(found) * 3 // 4) for found in self.written.findall(piece)))


class TranscriptTab(Tab):
    """A transcript as JSON: billed by tokens or by seconds, whichever `usage` says; else by the `duration` beside it."""

    written: ClassVar[re.Pattern[bytes]] = re.compile(rb'"text"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL)

    def __init__(self, likely_seconds: int) -> None:
        super().__init__()
        self._likely_seconds = likely_seconds
        self._usage: dict[str, Any] | None = None
        self._duration = 0

    def read(self, document: dict[str, Any]) -> bool:
        found = document.get("usage")
        self._usage = found if isinstance(found, dict) else None
        self._duration = _seconds(document, "duration")
        self.model = text(document, "model")
        return False

    def usage(self) -> Usage | None:
        if self._usage is None:
            return {"audio_seconds": self._duration} if self._duration else None
        # Transcripts spell it without an s, as realtime does; compatible servers have either.
        inputs = inner(self._usage, "input_token_details") or inner(self._usage, "input_tokens_details")
        cached = count(inputs, "cached_tokens")
        return buckets(
            input_uncached=max(count(self._usage, "input_tokens") - cached, 0),
            cache_read=cached,
            input_audio=count(inputs, "audio_tokens"),
            output=count(self._usage, "output_tokens"),
            audio_seconds=_seconds(self._usage, "seconds"),
        )

    def estimate(self) -> Usage | None:
        seconds = self._likely_seconds
        tokens = seconds * TOKENS_A_SECOND
        written = max(self.content_frames, -(-self.content_bytes // 4))
        return buckets(input_uncached=tokens, input_audio=tokens, output=written, audio_seconds=seconds)


class TranscriptEventsTab(TranscriptTab):
    """A transcript in events; the last has all the text again, and the usage."""

    marks: ClassVar[tuple[bytes, ...]] = (b"transcript.text.done",)
    written: ClassVar[re.Pattern[bytes]] = re.compile(rb'"delta"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL)

    def read(self, document: dict[str, Any]) -> bool:
        if document.get("type") == "transcript.text.done":
            self.done = True
            return super().read(document)
        return False


class PlainTranscriptTab(TranscriptTab):
    """Text or subtitles, without usage; but subtitles say when they end. No recording is longer than its bytes allow."""

    def __init__(self, likely_seconds: int, most_seconds: int) -> None:
        super().__init__(likely_seconds)
        self._most_seconds = most_seconds
        self._tail = b""
        self._heard = 0

    def pass_over(self, piece: bytes) -> None:
        self.content_bytes += len(piece)
        self.content_frames = 1
        last, self._tail = recordings.last_cue_end(self._tail + piece)
        if last > self._heard:
            self._heard = last
            self._likely_seconds = min(last, self._most_seconds)


def _seconds(found: dict[str, Any], name: str) -> int:
    """Seconds of an answer, perhaps with a fraction, as whole ones that were begun. Some servers write them as text."""
    value = found.get(name)
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < MOST:
        return 0
    return math.ceil(value)
