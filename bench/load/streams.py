"""Many streams at once, each read to its end; told when all of them are open."""

import asyncio
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import uvloop

from bench.contest import Way
from bench.machine import CannotRunError

PATIENCE_S = 120.0
_DONE = b"data: [DONE]"


class Streamed(NamedTuple):
    """What the callers saw."""

    streams: int
    seconds: float
    first_ms: float
    """Median time to a stream's first chunk."""


def run(way: Way, *, streams: int, ramp_s: float, when_open: Callable[[], None] = lambda: None) -> Streamed:
    """Open streams evenly over `ramp_s`, and read each to its end; `when_open` is called while all are open."""
    try:
        return uvloop.run(_run(way, streams, ramp_s, when_open))
    except TimeoutError:
        raise CannotRunError(f"{streams} streams were not over after {PATIENCE_S:.0f} s") from None


class _Stream(asyncio.Protocol):
    """One stream; `begun` when its first chunk came, `ended` True when all of it came, False when it broke off."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[float] = loop.create_future()
        self.ended: asyncio.Future[bool] = loop.create_future()
        self._request = request
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self._asked_s = time.monotonic()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.begun.done() and b"data: " in data:
            self.begun.set_result(time.monotonic() - self._asked_s)
        seen = self._tail + data
        if _DONE in seen and not self.ended.done():
            self.ended.set_result(True)
            self._transport.close()
        self._tail = seen[-len(_DONE) :]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it so
        for future, value in ((self.begun, 0.0), (self.ended, False)):
            if not future.done():
                future.set_result(value)  # type: ignore[arg-type]


async def _run(way: Way, streams: int, ramp_s: float, when_open: Callable[[], None]) -> Streamed:
    parts = urlsplit(way.url)
    request = _request(way, parts.netloc, parts.path)
    started_s = time.monotonic()
    opened: list[_Stream] = []
    for n in range(streams):
        await asyncio.sleep(max(started_s + ramp_s * n / streams - time.monotonic(), 0))
        _, stream = await asyncio.get_running_loop().create_connection(
            lambda: _Stream(request), parts.hostname or "", parts.port or 80
        )
        opened.append(stream)
    async with asyncio.timeout(PATIENCE_S):
        first = await asyncio.gather(*(stream.begun for stream in opened))
        when_open()
        ends = await asyncio.gather(*(stream.ended for stream in opened))
    if not all(ends):
        raise CannotRunError(f"{ends.count(False)} of {streams} streams broke off")
    return Streamed(streams, time.monotonic() - started_s, median(first) * 1000)


def _request(way: Way, host: str, path: str) -> bytes:
    body = way.body(stream=True)
    more = "".join(f"{name}: {value}\r\n" for name, value in way.headers.items())
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nAuthorization: Bearer {way.key}\r\n"
        f"{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
