"""Reading a copy of an answer as it passes: cutters find the documents in the bytes, a tab adds up what they say.

A meter forwards every byte as it came, but for an extra frame that the caller did not ask for. It is fed any split of the
bytes and finds the same usage (wire.md 5).
"""

import re
from collections.abc import Callable
from typing import Any, ClassVar, Final

import orjson

from gateway.dialects.cutter import Cutter
from gateway.dialects.sse import Frames, data_of

Usage = dict[str, int | str]
MAX_ANSWER = 256 * 1024 * 1024
# No answer has so many of anything. What says so is no count: billed, it would be more than any amount of money here can be.
# Ticks are 1e-10 USD.
MOST, MOST_TICKS = 10**8, 2**53
# Parts of other buckets, what is free, and who served: usage of nothing else has no bill.
_UNBILLED: Final = frozenset(
    ("output_reasoning", "input_tool", "input_audio", "input_image", "output_audio", "output_image", "web_fetches",
     "cost_usd_ticks", "service_tier", "speed", "inference_geo"),
)  # fmt: skip


_NOTHING: Final[list[bytes]] = []
_LEADS: Final = 16  # of an answer that may be learnt: some have a number in each piece, and none comes twice
_LONGEST_LEAD: Final = 1024


class Tab:
    """What an answer has come to so far. A format says which documents matter and what they mean.

    `done`: the answer said that it is whole. `marks`: bytes of which a document has at least one if it says anything
    but text; all others are never parsed. `written`: finds what a model wrote, for when no usage comes. `always_costs`:
    an answer has used something even if no text is in it.
    """

    marks: ClassVar[tuple[bytes, ...]] = ()
    always_costs = False
    written: ClassVar[re.Pattern[bytes]] = re.compile(rb"(?!)")

    def __init__(self) -> None:
        self.model: str | None = None
        self.done = False
        self.content_frames = 0
        self.content_bytes = 0
        self._texts: Callable[[bytes, int], list[bytes]] = self.written.findall  # bound once: every piece asks it
        self._lead = b""  # the bytes of a piece up to its first text, which it began to say at `_first`
        self._first = 0
        self._rest = b""  # what that piece had behind its only text
        self._leads_left = _LEADS

    def concerns(self, piece: bytes) -> bool:
        """Whether a piece is to be parsed."""
        # Not `in`, which first takes the mark for a number, raises and catches: three times as long, with every chunk.
        for mark in self.marks:  # noqa: SIM110 - a generator costs as much again
            if piece.find(mark) >= 0:
                return True
        return False

    def is_alike(self, piece: bytes) -> bool:
        """Count a piece that differs only in its words from an earlier one which said nothing else; False: it is not.

        The pieces of a stream are alike, but for a word. If that has no quotation mark in it and no backslash at its end,
        it is all of the text that it was in the other piece, and whatever a piece says beside it stands around it.
        """
        rest, start = self._rest, len(self._lead)
        if not rest or not piece.startswith(self._lead) or not piece.endswith(rest):
            return False
        end = len(piece) - len(rest)
        if end < start:  # before the slice, which compiled code makes of what is not there
            return False
        words = piece[start:end]
        if words.find(b'"') >= 0 or words.endswith(b"\\"):
            return False
        self.content_bytes += end - start
        self.content_frames += end > start
        return True

    def pass_over(self, piece: bytes) -> None:
        """Count what was written for the caller to read; the JSON around it is no output."""
        found = 0
        for words in self._texts(piece, self._first_text(piece)):
            found += len(words)
        self.content_bytes += found
        self.content_frames += found > 0

    def _first_text(self, piece: bytes) -> int:
        """Where to look for the first text of a piece: there is none before.

        The pieces of a stream begin alike. Whether a text begins somewhere is told by the bytes that lead to it; so a piece
        that has the bytes which led to another's first text has its own first text there.
        """
        if self._lead and piece.startswith(self._lead):
            return self._first
        if not self._leads_left:
            return 0
        found = self.written.search(piece)
        if found is None:
            return len(piece)
        if found.start(1) <= _LONGEST_LEAD:
            self._leads_left -= 1
            self._lead, self._first = piece[: found.start(1)], found.start()
            self._rest = self._rest_of(piece, found)
        return found.start()

    def _rest_of(self, piece: bytes, found: re.Match[bytes]) -> bytes:
        """What is behind the text of a piece that has this one only, and says nothing else; empty if it does not."""
        end = found.end(1)
        more = self.concerns(piece) or self.written.search(piece, end) is not None
        return b"" if more else piece[end:]

    def read(self, document: dict[str, Any]) -> bool:
        """A parsed document; True if it is an extra that the caller did not ask for."""
        raise NotImplementedError

    def usage(self) -> Usage | None:
        """The disjoint buckets that the provider reported, without zeros; None if it reported nothing."""
        raise NotImplementedError

    def estimate(self) -> Usage | None:
        """What an answer without usage came to, where the endpoint knows better than a token for every 4 bytes."""
        return None


class CountTab(Tab):
    """A number that costs nothing, such as a count of tokens: what it counts was not used."""

    def read(self, document: dict[str, Any]) -> bool:
        del document
        self.done = True
        return False

    def usage(self) -> Usage | None:
        return {} if self.done else None


class Whole(Cutter):
    """One document: the whole body."""

    def __init__(self) -> None:
        self._body: bytes | bytearray = b""
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        if not self._size:
            self._body = data  # mostly it is all there is
        elif self._size + len(data) <= MAX_ANSWER:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        self._size += len(data)
        return _NOTHING

    def rest(self) -> bytes:
        return bytes(self._body)


class Events(Frames):
    """One document in each server-sent event."""

    def document(self, piece: bytes) -> bytes:
        return data_of(piece)


class Meter:
    """Feeds a tab with the pieces of an answer. `hide` swallows the extras that the tab finds."""

    def __init__(self, tab: Tab, cutter: Cutter, *, hide: bool = False) -> None:
        self._tab = tab
        self._cutter = cutter
        self._whole = isinstance(cutter, Whole)
        self._hide = hide

    @property
    def model(self) -> str | None:
        """The model that served, as the provider names it."""
        return self._tab.model

    @property
    def done(self) -> bool:
        """Whether the answer said that it is whole."""
        return self._tab.done

    @property
    def content_frames(self) -> int:
        """How many pieces had text in them: a lower bound of the output tokens."""
        return self._tab.content_frames

    @property
    def content_bytes(self) -> int:
        """How many bytes of text there were, as JSON spells them."""
        return self._tab.content_bytes

    def usage(self) -> Usage | None:
        """What was reported. A report that counts nothing, of an answer with text in it, is none: it would be free."""
        usage = self._tab.usage()
        if is_billed(usage):
            return usage
        costs = self._tab.always_costs or self.output_seen() > 0
        return None if costs else usage

    def estimate(self) -> Usage | None:
        """All buckets of an answer without usage, for an endpoint whose input or output is no text; None for text."""
        return self._tab.estimate()

    def output_seen(self) -> int:
        """Output tokens that the bytes seen stand for when nothing was reported; never too few (design.md section 4)."""
        return max(self._tab.content_frames, -(-self._tab.content_bytes // 4))

    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on now."""
        pieces = self._cutter.feed(data)
        if not self._hide:
            for piece in pieces:
                self._look(piece)
            return data
        return b"".join([piece for piece in pieces if not self._look(piece)])

    def finish(self) -> bytes:
        """The answer has ended: what is left to pass on (a frame that was never ended)."""
        rest = self._cutter.rest()
        extra = bool(rest) and self._look(rest)
        return rest if self._hide and not extra else b""

    def _look(self, piece: bytes) -> bool:
        tab = self._tab
        if not self._whole:
            if tab.is_alike(piece):
                return False
            if not tab.concerns(piece):
                tab.pass_over(piece)
                return False
        try:
            document = orjson.loads(self._cutter.document(piece))
        except orjson.JSONDecodeError:
            tab.pass_over(piece)
            return False
        if not isinstance(document, dict):
            tab.pass_over(piece)
            return False
        extra = tab.read(document)
        if self._whole:
            tab.done = True
        if not extra and not (self._whole and is_billed(tab.usage())):
            tab.pass_over(piece)
        return extra


def is_billed(usage: Usage | None) -> bool:
    """Whether there is anything in it that can have a price."""
    if usage is not None:
        for name in usage:
            if name not in _UNBILLED:
                return True
    return False


def count(fields: Any, name: str, *, most: int = MOST) -> int:
    """A count of an answer: a whole number above zero, else 0. What is no number is no reason to lose the rest."""
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < most else 0


def counts(fields: Any, name: str) -> dict[str, int]:
    """All counts of an object inside an object that are above zero."""
    value = fields.get(name) if isinstance(fields, dict) else None
    if not isinstance(value, dict):
        return {}
    return {name: n for name, n in value.items() if n and count(value, name)}


def inner(fields: Any, name: str) -> dict[str, Any]:
    """An object inside an object; an empty one if it is not there."""
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, dict) else {}


def text(fields: Any, name: str) -> str | None:
    """A short string of an answer, such as a model's name; never more of it than a name has."""
    value = fields.get(name) if isinstance(fields, dict) else None
    return value[:200] if isinstance(value, str) and value else None


def buckets(**counts: int | str | None) -> Usage:
    """Without zeros: zero means absent. Nor is a sum of counts above what a count can be."""
    found: Usage = {}
    for name, value in counts.items():
        if isinstance(value, int) and value:
            found[name] = min(value, MOST_TICKS if name == "cost_usd_ticks" else MOST)
        elif value:
            found[name] = value
    return found
