"""The words of the bench: who takes part, how a caller reaches them, and what was measured of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

MODEL = "gpt-4.1"
_ASK = (
    "Hello! Please answer in two sentences, and tell me about reverse proxies and how they meter traffic without"
    " storing it."
)
_PROSE = 'The reader said: \\"Proceed.\\" Then line after line of an ordinary prompt went by, and nobody stored it.\\n'


class Way(NamedTuple):
    """How a caller reaches a model through one contestant."""

    url: str
    """Of chat completions, whole."""
    key: str
    model: str = MODEL
    headers: Mapping[str, str] = {}

    def body(self, *, stream: bool = False, size: int = 0) -> bytes:
        """A chat completion of about 300 bytes, or padded with prose to `size`."""
        streaming = ',"stream":true,"stream_options":{"include_usage":true}' if stream else ""
        frame = (
            f'{{"model":"{self.model}","max_tokens":256{streaming},"messages":[{{"role":"system","content":'
            f'"You are a helpful assistant."}},{{"role":"user","content":"%s{_ASK}"}}]}}'
        )
        missing = max(size - len(frame), 0)
        return (frame % (_PROSE * (missing // len(_PROSE)))).encode()


class Contestant(NamedTuple):
    """One that runs: how to call it, and whose CPU it costs."""

    name: str
    version: str
    plain: Way
    stream: Way
    processes: Sequence[psutil.Process] = ()
    rests: bool = False
    """Whether it is stopped (SIGSTOP) while another is measured, so that its own chores disturb nobody."""
    slow: bool = False
    """Whether it gets the short runs and the fewer streams."""


class Upstreams(NamedTuple):
    """What contestants forward to: base URLs without the `/v1`."""

    plain: str
    stream: str


Adapter = Callable[[Path, Upstreams], AbstractContextManager[Contestant]]


class Measure(msgspec.Struct):
    """What one run of one scenario against one contestant gave."""

    scenario: str
    contestant: str
    round: int
    values: dict[str, float]
