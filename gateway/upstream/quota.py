"""What a provider's headers say of the operator's quota there: how much is left, until when, and when to come again.

OpenAI and xAI say `x-ratelimit-{remaining,reset}-{requests,tokens}` with a duration (`1s`, `6m0s`, `120ms`), Anthropic
`anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{remaining,reset}` with a time. Reading is pure; what
cannot be read says nothing.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from gateway.headers import Headers

LONGEST_S: Final = 60.0
"""Nothing that was said is believed for longer: then one request finds out anew."""
UNSAID_S: Final = 1.0

_OPENAI: Final = b"x-ratelimit-"
_ANTHROPIC: Final = b"anthropic-ratelimit-"
_KINDS: Final = (b"requests", b"tokens", b"input-tokens", b"output-tokens")
_LONGEST_TEXT: Final = 64
_NUMBER: Final = re.compile(rb"\d{1,15}")
_DURATION: Final = re.compile(rb"(?:\d{1,9}(?:\.\d{1,12})?(?:ns|us|ms|[smhd]))+|\d{1,9}(?:\.\d{1,12})?")
_SECONDS: Final = re.compile(rb"-?\d{1,12}(?:\.\d{1,12})?")
_PART: Final = re.compile(rb"(\d+(?:\.\d+)?)(ns|us|ms|[smhd]?)")
_UNIT_S: Final = {b"": 1.0, b"ns": 1e-9, b"us": 1e-6, b"ms": 1e-3, b"s": 1.0, b"m": 60.0, b"h": 3_600.0, b"d": 86_400.0}


class Left(NamedTuple):
    """So much is left of a kind (None: not said), for so many seconds."""

    left: int | None
    reset_s: float | None


class Tokens:
    """Tokens that a request is quoted at."""

    def __init__(self, read: int = 0, written: int = 0) -> None:
        self.input: Final = read
        self.output: Final = written
        self.total: Final = read + written


def read(headers: Headers, now_s: float) -> dict[bytes, Left]:
    """What is said, by kind; empty if nothing is. Names are in lower case; `now_s` is the time of day."""
    # Not a tuple of both: compiled code looks at the bytes for one, and calls a method for two.
    concerned = [field for field in headers if field[0].startswith(_OPENAI) or field[0].startswith(_ANTHROPIC)]
    if not concerned:
        return {}
    said: dict[tuple[bytes, bytes], bytes] = {}
    for name, value in concerned:
        if name.startswith(_OPENAI):
            what, _, kind = name[len(_OPENAI) :].partition(b"-")
        else:
            kind, _, what = name[len(_ANTHROPIC) :].rpartition(b"-")
        said[kind, what] = value.strip()
    found = {kind: _left(said.get((kind, b"remaining")), said.get((kind, b"reset")), now_s) for kind in _KINDS}
    return {kind: left for kind, left in found.items() if left != (None, None)}


def _left(remaining: bytes | None, reset: bytes | None, now_s: float) -> Left:
    number = int(remaining) if remaining is not None and _NUMBER.fullmatch(remaining) else None
    return Left(number, None if reset is None else _seconds(reset, now_s))


def _seconds(text: bytes, now_s: float) -> float | None:
    """A duration, or the time until a time; None if it is neither."""
    if len(text) > _LONGEST_TEXT:
        return None
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
    try:
        at = datetime.fromisoformat(text.decode("ascii"))
        return max(at.timestamp() - now_s, 0.0) if at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def retry_after_s(headers: Headers, now_s: float) -> float | None:
    """How long a provider that refused wants to be left alone: `retry-after-ms`, or `retry-after` in seconds or as a date,
    or else until what it has used up comes back.
    """
    named = dict(headers)
    for name, each in ((b"retry-after-ms", 1000.0), (b"retry-after", 1.0)):
        if name in named and _SECONDS.fullmatch(named[name].strip()):
            return max(float(named[name]) / each, 0.0)
    try:
        return max(parsedate_to_datetime(named[b"retry-after"].decode("latin-1")).timestamp() - now_s, 0.0)
    except (KeyError, ValueError, OverflowError):
        return _until_more(read(headers, now_s).values())


def _until_more(said: Iterable[Left]) -> float | None:
    """Until all that is used up has come back. What is not said to be used up counts only if nothing is."""
    resets = [(each.left == 0, each.reset_s) for each in said if each.reset_s is not None]
    empty = [reset for is_empty, reset in resets if is_empty]
    return max(empty) if empty else min((reset for _, reset in resets), default=None)


class Quota:
    """What was said last of one model at one upstream, and what is under way there."""

    def __init__(self) -> None:
        self._until: dict[bytes, tuple[int, float]] = {}
        self._requests = self._input = self._output = 0

    def learn(self, said: dict[bytes, Left], now: float) -> None:
        for kind, (left, reset_s) in said.items():
            if left is not None:
                self._until[kind] = (left, now + min(UNSAID_S if reset_s is None else reset_s, LONGEST_S))

    def begin(self, tokens: Tokens) -> None:
        self._requests += 1
        self._input += tokens.input
        self._output += tokens.output

    def end(self, tokens: Tokens) -> None:
        self._requests -= 1
        self._input -= tokens.input
        self._output -= tokens.output

    def wait_s(self, tokens: Tokens, now: float) -> float:
        """How long until what is left covers what is under way and this one too; 0 if it does."""
        if not self._until:
            return 0.0
        need = {
            b"requests": self._requests + 1,
            b"tokens": self._input + self._output + tokens.total,
            b"input-tokens": self._input + tokens.input,
            b"output-tokens": self._output + tokens.output,
        }
        return max([0.0, *(until - now for kind, (left, until) in self._until.items() if left < need[kind])])
