"""How long a recording may be, and probably is, going by its bytes: no provider is asked, and nothing is decoded."""

import re

from gateway.dialects.multipart import Form, Part

# For holds: no codec for speech that is in use has fewer bytes a second (4 kbit/s), and no provider takes more seconds.
LEAST_BYTES_A_SECOND, MOST_SECONDS = 500, 14_400
# For bills without usage: 64 kbit/s, between a voice memo and music. A WAV file says itself what it has.
LIKELY_BYTES_A_SECOND = 8_000
_WAV = re.compile(rb"RIFF.{4}WAVEfmt .{12}(.{4})", re.DOTALL)
_WAV_HEADER = 32
# The end of a cue in SubRip and WebVTT, which leaves hours out where it can.
_CUE_END = re.compile(rb"--> +(?:(\d{2,3}):)?(\d\d):(\d\d)[.,](\d{3})")
_CUE_LENGTH = 64


def most_seconds(form: Form) -> int:
    """A bound for all files of a form together."""
    return min(sum(-(-part.size // LEAST_BYTES_A_SECOND) for part in form.files()), MOST_SECONDS)


def likely_seconds(form: Form) -> int:
    """A guess; never above the bound."""
    return min(sum(_likely(form.body, part) for part in form.files()), most_seconds(form))


def _likely(body: bytes, part: Part) -> int:
    wav = _WAV.match(body[part.start : min(part.end, part.start + _WAV_HEADER)])
    rate = int.from_bytes(wav[1], "little") if wav else 0
    return -(-part.size // (rate or LIKELY_BYTES_A_SECOND))


def last_cue_end(text: bytes) -> tuple[int, bytes]:
    """The latest end of a subtitle in whole seconds that were begun, and the rest in which another one may begin."""
    ends = [
        int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + (int(millis) > 0)
        for hours, minutes, seconds, millis in _CUE_END.findall(text)
    ]
    return min(max(ends, default=0), MOST_SECONDS), text[-_CUE_LENGTH:]
