"""A caller's connection: when it is closed, when it is not read, whom it serves next, and who hears that it is lost."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.listener import HIGH_WATER, Listener
from tests.unit.test_cycle import Transport

KEPT_S = 75
REQUEST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"


class Line(Transport):
    """Its reading may be paused, as it is while callers pipeline."""

    read = True

    def pause_reading(self) -> None:
        self.read = False

    def resume_reading(self) -> None:
        self.read = True


class Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """A loop whose time goes by when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.timers: list[Timer] = []
        self.create_task = asyncio.get_running_loop().create_task

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[..., None], *args: Any) -> Timer:
        self.timers.append(Timer(self.now + seconds, lambda: call(*args)))
        return self.timers[-1]

    @property
    def waiting(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def passes(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.waiting if timer.at <= self.now]:
            self.timers.remove(timer)
            timer.call()


class Caller:
    """One connection to an application that answers when it may, with the path it was asked for."""

    def __init__(self, transport: Line | None = None) -> None:
        self.clock = Clock()
        self.may_answer = asyncio.Semaphore(100)
        self.state = ServerState()
        config = uvicorn.Config(
            self.answer, http=Listener, interface="asgi3", timeout_keep_alive=KEPT_S, log_config=None, lifespan="off"
        )
        config.load()
        self.listener = Listener(config, self.state, {}, _loop=self.clock)
        self.transport = transport or Line()
        self.listener.connection_made(self.transport)

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await self.may_answer.acquire()
        body: bytes = scope["raw_path"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def asks(self) -> None:
        self.listener.data_received(REQUEST)
        tasks = set(self.state.tasks)
        assert len(tasks) == 1
        if not self.may_answer.locked():
            await asyncio.gather(*tasks)
            assert not self.state.tasks, "a shutdown would wait for it"
            assert self.transport.written[-1].startswith(b"HTTP/1.1 200")


def request(path: bytes) -> bytes:
    return REQUEST.replace(b" / ", b" %b " % path)


def closes_in_its_time(caller: Caller) -> None:
    """From now on, if nothing comes: not before its time is up, and then."""
    caller.clock.passes(KEPT_S - 1)
    assert not caller.transport.closed
    caller.clock.passes(1)
    assert caller.transport.closed


@pytest.fixture
async def caller() -> Caller:
    return Caller()


async def test_an_idle_connection_is_closed_when_its_time_is_up(caller: Caller) -> None:
    await caller.asks()
    closes_in_its_time(caller)


async def test_each_answer_gives_it_the_whole_time_again_with_one_timer(caller: Caller) -> None:
    for _ in range(2):
        await caller.asks()
        assert len(caller.clock.waiting) == 1
        caller.clock.passes(KEPT_S - 1)
    assert not caller.transport.closed
    caller.clock.passes(1)
    assert caller.transport.closed


async def test_a_connection_in_use_is_not_idle(caller: Caller) -> None:
    await caller.asks()
    caller.may_answer = asyncio.Semaphore(0)
    caller.clock.passes(KEPT_S - 1)
    await caller.asks()
    caller.clock.passes(10 * KEPT_S)
    assert not caller.transport.closed
    caller.may_answer.release()
    await asyncio.gather(*caller.state.tasks)
    closes_in_its_time(caller)


async def test_a_head_under_way_is_not_idle(caller: Caller) -> None:
    await caller.asks()
    caller.clock.passes(KEPT_S - 1)
    caller.listener.data_received(REQUEST[:20])
    caller.clock.passes(1)
    assert not caller.transport.closed  # how long a head may take is another clock's


async def test_what_follows_in_the_pipeline_is_served_before_it_is_idle(caller: Caller) -> None:
    caller.may_answer = asyncio.Semaphore(1)
    caller.listener.data_received(REQUEST + REQUEST)
    await asyncio.gather(*caller.state.tasks)
    caller.clock.passes(KEPT_S)
    assert not caller.transport.closed
    caller.may_answer.release()
    await asyncio.gather(*caller.state.tasks)
    assert [piece[:12] for piece in caller.transport.written] == [b"HTTP/1.1 200"] * 2
    caller.clock.passes(KEPT_S)
    assert caller.transport.closed


async def test_a_pipeline_is_served_in_its_order(caller: Caller) -> None:
    """Whoever sent them tells the answers apart by nothing else."""
    paths = [b"/1", b"/2", b"/3", b"/4"]
    caller.listener.data_received(b"".join(request(path) for path in paths))
    assert not caller.transport.read, "whoever does not wait for answers is not read on"
    while caller.state.tasks:
        await asyncio.gather(*caller.state.tasks)
    assert caller.transport.read
    assert [piece.rpartition(b"\r\n\r\n")[2] for piece in caller.transport.written] == paths


async def test_a_body_that_nobody_takes_is_not_read_on(caller: Caller) -> None:
    caller.may_answer = asyncio.Semaphore(0)
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (HIGH_WATER + 2)
    caller.listener.data_received(head + bytes(HIGH_WATER))
    assert caller.transport.read
    caller.listener.data_received(b"1")
    assert not caller.transport.read
    await asyncio.sleep(0)  # now it is taken, and the answer is yet to come
    assert (caller.transport.read, caller.transport.written) == (True, [])
    caller.listener.data_received(b"2")
    caller.may_answer.release()
    await asyncio.gather(*caller.state.tasks)
    assert caller.transport.written[0].startswith(b"HTTP/1.1 200")


async def test_a_shutdown_closes_an_idle_connection_at_once(caller: Caller) -> None:
    await caller.asks()
    caller.listener.shutdown()
    assert caller.transport.closed


async def test_a_shutdown_lets_answers_end_and_keeps_no_connection(caller: Caller) -> None:
    caller.may_answer = asyncio.Semaphore(0)
    caller.listener.data_received(request(b"/1") + request(b"/2"))
    caller.listener.shutdown()
    assert not caller.transport.closed
    for _ in range(2):
        caller.may_answer.release()
        await asyncio.gather(*caller.state.tasks)
    first, last = caller.transport.written
    assert (b"connection: close" in first, b"connection: close" in last) == (False, True)
    assert caller.transport.closed


class Attentive(Caller):
    """Its application answers `/`; of anything else it waits to hear that the caller has left."""

    waits = False

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await super().answer(scope, receive, send)
            return
        await receive()
        self.waits = True
        self.heard = await receive()


@pytest.mark.parametrize("before", [b"", REQUEST], ids=["alone", "in a pipeline"])
async def test_whoever_serves_hears_that_the_caller_has_left(before: bytes) -> None:
    caller = Attentive()
    caller.listener.data_received(before + request(b"/waits") + request(b"/behind"))
    while not caller.waits:
        await asyncio.sleep(0)
    caller.listener.connection_lost(None)
    async with asyncio.timeout(5):
        await asyncio.gather(*caller.state.tasks)
    assert caller.heard == {"type": "http.disconnect"}
    assert not caller.state.tasks, "what is behind it has nobody to be served for"


async def test_a_lost_connection_leaves_no_timer(caller: Caller) -> None:
    await caller.asks()
    caller.listener.connection_lost(None)
    assert not caller.clock.waiting


class HalfOpen(Line):
    """One that can end its own side first, as TCP's does."""

    ended = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True


async def test_a_refusal_is_said_once_and_then_nothing_is_read() -> None:
    caller = Caller(transport := HalfOpen())
    caller.listener.data_received(b"no request" + b"x" * 66_000)  # which is also too large
    caller.listener.data_received(REQUEST)
    assert [piece[:12] for piece in transport.written] == [b"HTTP/1.1 400"]
    assert (transport.ended, transport.closed, caller.state.tasks) == (True, False, set())
    assert not caller.clock.waiting, "a lingering connection has no head to wait for"
    caller.listener.connection_lost(None)


async def test_a_refusal_behind_a_request_under_way_ends_the_connection() -> None:
    """So that whoever serves it hears at once that nobody will have its answer."""
    caller = Caller(transport := HalfOpen())
    caller.may_answer = asyncio.Semaphore(0)
    caller.listener.data_received(REQUEST + b"no request")
    assert [piece[:12] for piece in transport.written] == [b"HTTP/1.1 400"]
    assert (transport.ended, transport.closed) == (False, True)
    caller.listener.connection_lost(None)
    for task in caller.state.tasks:
        task.cancel()
