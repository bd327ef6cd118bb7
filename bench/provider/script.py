"""What the provider is told to do: behaviours, and which request gets which."""

from collections import deque
from collections.abc import Iterable
from itertools import repeat
from typing import Any, Literal

import msgspec

DEFAULT_TEXT = "Hello from the scripted provider."

Framing = Literal["auto", "length", "chunked", "close"]


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one request is answered; as it stands, quickly and well.

    A position (`*_after_chunks`) counts content chunks; one past the end means: after the last content, but
    before what completes the answer (finish reason, usage, terminator). An answer that is not streamed, or a
    raw `body`, is written in `chunks` parts (1 by default) and a rest, so no position is behind its end.
    """

    text: str = DEFAULT_TEXT
    """The words of the answer; a word is a token. Repeated if `chunks` asks for more words than it has."""
    chunks: int | None = None
    """How many content chunks; by default one a word."""
    usage: dict[str, Any] | None = None
    """The dialect's own usage object, sent (and billed) instead of the counted one."""
    omit_usage: bool = False
    ignore_cap: bool = False
    """Write on past the request's output cap, which a provider otherwise enforces."""

    status: int = 200
    """From 400 on: the dialect's error body, never streamed."""
    headers: dict[str, str] = {}
    body: bytes | None = None
    """Sent as it is in place of an answer; nothing is billed unless `usage` says so."""
    content_type: str | None = None
    framing: Framing = "auto"
    """How the body's end is marked; `auto` is chunked for a stream, else a content-length."""
    wire: bytes | None = None
    """Head and all, written to the socket as it is; it stays open unless `cut_after_chunks` is set.
    Billed like `body`."""

    gate: bool = False
    """Wait for `release()` before the first byte."""
    first_byte_delay_s: float = 0.0
    pace_s: float = 0.0
    """Between chunks."""
    stall_after_chunks: int | None = None
    """Then wait for `release()`, and go on."""
    error_after_chunks: int | None = None
    """Then the dialect's own mid-stream error, and a clean end of the body. Streams only."""
    cut_before_answer: bool = False
    cut_after_chunks: int | None = None
    """Then close the socket, with no terminator."""
    reset: bool = False
    """Cuts are resets (RST) instead of closes (FIN)."""

    times: int | None = None
    """Serve this many requests, then fall back to what held before; None: from now on."""

    @property
    def is_immediate(self) -> bool:
        """Whether the whole answer can be written at once, without a task."""
        return not (
            self.gate
            or self.first_byte_delay_s
            or self.pace_s
            or self.cut_before_answer
            or self.wire is not None
            or self.stall_after_chunks is not None
            or self.error_after_chunks is not None
            or self.cut_after_chunks is not None
        )


class _Rule:
    __slots__ = ("counted", "standing")

    def __init__(self) -> None:
        self.counted: deque[Behaviour] = deque()
        self.standing: Behaviour | None = None


class Script:
    """The queue first, then the rule for model and credential, model, credential, everyone."""

    def __init__(self, default: Behaviour) -> None:
        self._default = default
        self._queue: deque[Behaviour] = deque()
        self._rules: dict[tuple[str | None, str | None], _Rule] = {}

    def clear(self) -> None:
        self._queue.clear()
        self._rules.clear()

    def rule(self, behaviour: Behaviour, *, model: str | None, credential: str | None) -> None:
        rule = self._rules.setdefault((model, credential), _Rule())
        if behaviour.times is None:
            rule.counted.clear()
            rule.standing = behaviour
        else:
            rule.counted.extend(repeat(behaviour, behaviour.times))

    def queue(self, behaviours: Iterable[Behaviour]) -> None:
        for behaviour in behaviours:
            times = 1 if behaviour.times is None else behaviour.times
            self._queue.extend(repeat(behaviour, times))

    def choose(self, model: str, credential: str, *, free: bool) -> Behaviour:
        """A free endpoint uses up nothing counted: a health check must not eat what waits for a request."""
        if self._queue and not free:
            return self._queue.popleft()
        if self._rules:
            for key in ((model, credential), (model, None), (None, credential), (None, None)):
                rule = self._rules.get(key)
                if rule is None:
                    continue
                if rule.counted and not free:
                    return rule.counted.popleft()
                if rule.standing is not None:
                    return rule.standing
        return self._default
