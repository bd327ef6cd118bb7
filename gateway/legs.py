"""The legs of a session, one for each response, and the frames that go to and fro."""

import asyncio
import contextlib
import time
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gateway.bill import End, settlement
from gateway.dialects.meter import Usage
from gateway.dialects.openai import realtime
from gateway.dialects.openai.realtime import Ended
from gateway.tickets import Ticket
from ledger.catalogue import Upstream
from ledger.settlement import Settlement

_SWITCHED = 101


class Leg:
    """One response of a session, from its hold to its bill; a Flight while it lasts."""

    def __init__(self, ticket: Ticket) -> None:
        self.rid = ticket.rid
        self.place = ticket.place
        self.begun = False
        self.stopped = False
        self.tokens = ticket.tokens
        self._ticket = ticket
        self.upstream: Upstream | None = None  # once there is a connection
        self._began = time.perf_counter()
        self._first_byte: float | None = None
        self._frames = 0
        self._written = 0
        self._bytes_out = 0

    def pass_on(self, frame: bytes) -> None:
        """A frame of the provider goes to the caller."""
        self._first_byte = self._first_byte or time.perf_counter()
        self._bytes_out += len(frame)
        self.begun = self.begun or realtime.begins(frame)
        written = sum(map(len, realtime.WRITTEN.findall(frame)))
        self._written += written
        self._frames += written > 0

    def look(self, now: float) -> None:
        """Nothing: a session has pings of its own."""

    def used_nanos(self) -> int:
        if not self.begun:
            return 0
        least: Usage = {"input_uncached": self._ticket.input_estimate, "output": self._frames}
        return min(self._ticket.cost(least), self._ticket.admitted.amount_nanos)

    def stop(self) -> None:
        """The cost has reached the hold; the response that is under way ends, and no other begins."""
        self.stopped = True

    def end(self, outcome: str, ended: Ended | None) -> Settlement:
        """What it comes to. A response that never began is void."""
        return settlement(
            self._ticket,
            self.upstream,
            End(
                outcome=outcome,
                status=_SWITCHED,
                usage=ended.usage if ended else None,
                whole=ended is not None,
                estimate=None,
                seen=max(self._frames, -(-self._written // 4)),
                answered=self.begun or ended is not None,
                served_model=ended.model if ended else None,
                began=self._began,
                first_byte=self._first_byte,
                bytes_out=self._bytes_out,
            ),
        )


class CallerLeft(Exception):
    """The caller's side of the session has ended."""


async def frames_of_caller(receive: Any) -> Any:
    """The caller's frames as they come; CallerLeft at the end."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            raise CallerLeft
        if message["type"] == "websocket.receive":
            text = message.get("text")
            yield message["bytes"] if text is None else text


def event_of(frame: bytes) -> dict[str, Any]:
    """A frame as an event; empty if it is none."""
    with contextlib.suppress(orjson.JSONDecodeError):
        event = orjson.loads(frame)
        if isinstance(event, dict):
            return event
    return {}


def carried(frame: str | bytes) -> tuple[bytes, dict[str, Any]]:
    """A frame of the provider's: its bytes, and the message that carries it on."""
    if isinstance(frame, str):
        return frame.encode(), {"type": "websocket.send", "text": frame}
    return frame, {"type": "websocket.send", "bytes": frame}


async def close_both(upstream: ClientConnection | None, send: Any, code: int, reason: str) -> None:
    """End the session on both sides; either may be gone already."""
    with contextlib.suppress(Exception):
        await send({"type": "websocket.close", "code": code, "reason": reason[:100]})
    if upstream is not None:
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            await asyncio.wait_for(upstream.close(), 2)
