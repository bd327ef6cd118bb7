"""One request being answered, as its behaviour says."""

import asyncio
import time
from http import HTTPStatus
from typing import Protocol

import orjson

from bench.provider.answers.reply import FREE, JSON_TYPE, Reply, whole
from bench.provider.house import House
from bench.provider.record import Bill, Outcome, Seen
from bench.provider.route import Request, Route, route
from bench.provider.script import Behaviour

IMMEDIATE_BYTES = 65_536  # what is longer goes at its reader's speed, and notices when the reader leaves

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Wire(Protocol):
    """The connection, as far as an answer needs it."""

    def write(self, data: bytes) -> None: ...
    async def drained(self) -> None: ...
    async def cut(self, *, reset: bool) -> None: ...
    def done(self, *, keep_alive: bool) -> None: ...


class Exchange:
    """Answers at once where the behaviour allows it, else in a task of its own."""

    def __init__(self, house: House, wire: Wire, request: Request) -> None:
        self._house = house
        self._wire = wire
        number = house.record.next_number()
        found = route(request, number)
        self._seen = _seen(house, request, found, number)
        refusal = _refusal(house, found)
        self._behaviour = _choose(house, found) if refusal is None else Behaviour(status=refusal[0])
        self._reply = _reply(found, self._behaviour, refusal)
        self._refused = refusal is not None
        self._seen.status = self._behaviour.status
        self._seen.streamed = found.call is not None and found.call.streamed and self._behaviour.status < 400
        self._framing = self._behaviour.framing
        if self._framing == "auto":
            flows = self._seen.streamed or self._reply.content_type.startswith("text/event-stream")
            self._framing = "chunked" if flows else "length"
        self._keep_alive = request.keep_alive and self._framing != "close"
        self._request_id_header = found.dialect.request_id_header
        self._task: asyncio.Task[None] | None = None
        house.record.arrived(self._seen)

    def begin(self) -> None:
        if self._behaviour.is_immediate:
            reply, frame = self._reply, self._frame
            parts = [self._head(), frame(reply.opening), *map(frame, reply.pieces), frame(reply.closing)]
            data = b"".join(parts) + self._terminator()
            if len(data) <= IMMEDIATE_BYTES:
                self._seen.chunks_sent = len(reply.pieces)
                self._wire.write(data)
                self._end("refused" if self._refused else "answered")
                return
        self._house.record.stats.open_streams += self._seen.streamed
        self._task = asyncio.create_task(self._perform())

    def abandon(self, outcome: Outcome) -> None:
        """The connection is gone, by their doing or ours."""
        if self._task is not None:
            self._task.cancel()
        self._close_book(outcome)

    async def _perform(self) -> None:
        """Read it from top to bottom: that is the order of things on the wire."""
        behaviour, reply, wire = self._behaviour, self._reply, self._wire
        if behaviour.gate:
            await self._house.hold()
        if behaviour.first_byte_delay_s:
            await asyncio.sleep(behaviour.first_byte_delay_s)
        if behaviour.cut_before_answer:
            await self._cut()
            return
        if behaviour.wire is not None:
            await self._perform_wire(behaviour.wire)
            return
        wire.write(self._head() + self._frame(reply.opening))
        count = len(reply.pieces)
        stall, cut, error = (_position(at, count) for at in _positions(behaviour))
        for sent in range(count + 1):
            self._seen.chunks_sent = sent
            if sent == stall:
                await self._house.hold()
            if sent == cut:
                await self._cut()
                return
            if sent == error and reply.error:
                wire.write(self._frame(reply.error) + self._terminator())
                self._end("errored")
                return
            if sent == count:
                break
            if sent and behaviour.pace_s:
                await asyncio.sleep(behaviour.pace_s)
            wire.write(self._frame(reply.pieces[sent]))
            await wire.drained()
            self._house.record.changed()
        wire.write(self._frame(reply.closing) + self._terminator())
        self._end("answered")

    async def _perform_wire(self, data: bytes) -> None:
        self._wire.write(data)
        if self._behaviour.cut_after_chunks is None:
            self._end("answered")
        else:
            await self._cut()

    async def _cut(self) -> None:
        self._close_book("cut")
        await self._wire.cut(reset=self._behaviour.reset)

    def _end(self, outcome: Outcome) -> None:
        self._close_book(outcome)
        self._wire.done(keep_alive=self._keep_alive)

    def _close_book(self, outcome: Outcome) -> None:
        seen, record = self._seen, self._house.record
        if seen.outcome != "open":
            return
        if self._task is not None:
            record.stats.open_streams -= seen.streamed
        record.ended(seen, outcome, self._bill(outcome))

    def _bill(self, outcome: Outcome) -> Bill | None:
        """In full for an answer that is complete or was made in one go, else by the chunks that were sent."""
        reply, seen = self._reply, self._seen
        if not reply.billed or (outcome != "answered" and not seen.chunks_sent):
            return None
        completion = reply.completion_tokens
        if outcome != "answered" and reply.piece_tokens is not None:
            completion = sum(reply.piece_tokens[: seen.chunks_sent])
        return Bill(seen.number, seen.model, reply.prompt_tokens, completion)

    def _head(self) -> bytes:
        behaviour, reply = self._behaviour, self._reply
        phrase = _PHRASES.get(behaviour.status, "")
        lines = [f"HTTP/1.1 {behaviour.status} {phrase}", f"content-type: {reply.content_type}"]
        lines.append(f"{self._request_id_header}: req_{self._seen.number}")
        lines += [f"{name}: {value}" for name, value in behaviour.headers.items()]
        if self._framing == "chunked":
            lines.append("transfer-encoding: chunked")
        elif self._framing == "length":
            length = len(reply.opening) + sum(map(len, reply.pieces)) + len(reply.closing)
            lines.append(f"content-length: {length}")
        if not self._keep_alive:
            lines.append("connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _frame(self, data: bytes) -> bytes:
        # An empty chunk would end the body.
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self._framing == "chunked" else data

    def _terminator(self) -> bytes:
        return b"0\r\n\r\n" if self._framing == "chunked" else b""


def _seen(house: House, request: Request, found: Route, number: int) -> Seen:
    return Seen(
        number=number,
        method=request.method,
        target=request.target,
        headers=request.headers,
        model=found.call.model if found.call else "",
        credential=found.credential,
        arrived_s=time.monotonic(),
        body=request.body if house.record.bodies else None,
    )


def _refusal(house: House, found: Route) -> tuple[int, str] | None:
    if not house.accepts(found.credential):
        return 401, "Incorrect API key provided." if found.credential else "You did not provide an API key."
    if found.call is None:
        return 404, "Not found."
    return None


def _choose(house: House, found: Route) -> Behaviour:
    assert found.call is not None
    return house.script.choose(found.call.model, found.credential, free=found.call.endpoint in FREE)


def _reply(found: Route, behaviour: Behaviour, refusal: tuple[int, str] | None) -> Reply:
    """A raw body, an error in the dialect, or an answer; usage that is scripted for a raw body is billed."""
    if behaviour.body is not None or behaviour.wire is not None:
        reply = whole(behaviour.body or b"", behaviour.content_type or JSON_TYPE, behaviour.chunks)
        if behaviour.usage is None or found.call is None:
            return reply
        billed = found.dialect.respond(found.call, behaviour)
        return reply._replace(
            prompt_tokens=billed.prompt_tokens, completion_tokens=billed.completion_tokens, billed=True
        )
    if behaviour.status >= 400 or found.call is None:
        message = refusal[1] if refusal else f"The script says {behaviour.status}."
        body = orjson.dumps(found.dialect.error(behaviour.status, message))
        return whole(body, behaviour.content_type or JSON_TYPE, behaviour.chunks)
    reply = found.dialect.respond(found.call, behaviour)
    return reply if behaviour.content_type is None else reply._replace(content_type=behaviour.content_type)


def _positions(behaviour: Behaviour) -> tuple[int | None, int | None, int | None]:
    return behaviour.stall_after_chunks, behaviour.cut_after_chunks, behaviour.error_after_chunks


def _position(at: int | None, count: int) -> int | None:
    return None if at is None else min(at, count)
