"""A relayed answer and a caller who is slower than the upstream."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import httpx2
import pytest

from gateway.dialects.openai.chat import Chat
from gateway.dialects.shape import Call
from gateway.intake import Intake, Weight
from gateway.relay import READ_WITHIN_S, Relay, Request
from gateway.surface import OPENAI
from gateway.upstream.attempts import Search
from ledger.price_record import Price
from tests.billing import Priced, ticket
from tests.unit.test_cycle import cycle

FRAMES = [b'data: {"choices":[{"delta":{"content":"word%d"}}]}\n\n' % n for n in range(6)]
DONE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6}}\n\ndata: [DONE]\n\n'
BODY = (
    b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Hi"}]}'
)


class Answer:
    """An upstream that has its frames ready; how many of them were taken."""

    headers = ((b"content-type", b"text/event-stream"),)

    def __init__(self, status: int, *, begun: bool = True) -> None:
        self.status = status
        self.begun = begun
        self.left = [*FRAMES, DONE]
        self.breaks_at = -1
        self.dropped = 0
        self.before: dict[int, Callable[[], None]] = {}  # what happens when so many are left

    @property
    def complete(self) -> bool:
        return not self.left

    async def next_chunk(self) -> bytes:
        return self.left.pop(0) if self.left else b""

    async def relay(self, take: Callable[[bytes], bool]) -> bool:
        while self.left:
            self.before.get(len(self.left), lambda: None)()
            if len(self.left) == self.breaks_at:
                raise httpx2.ReadError("The connection broke.")
            if not take(self.left.pop(0)):
                break
        return bool(self.left)

    def drop(self) -> None:
        self.dropped += 1


class Asked:
    """A search that has found this answer."""

    chosen = None

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def answer(self, *_: Any, **__: Any) -> Answer:
        return self._answer


class Relaying:
    """One answer on its way to a caller."""

    def __init__(self, status: int = 200, *, begun: bool = True) -> None:
        self.answer = Answer(status, begun=begun)
        self.cycle, self.transport, _ = cycle()
        self.flow = self.cycle.flow
        self.intake = Intake()
        self.intake.buffered = len(BODY)
        self.relay: Relay
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        endpoint, call = Chat(), Call(BODY)
        asked = endpoint.read(call)
        priced = Priced(Price(version=1, rates={"input": 2_000_000, "output": 8_000_000}))
        self.relay = Relay(
            ticket(priced, endpoint, asked, BODY),
            Request(OPENAI, endpoint, call, asked),
            cast("Search", Asked(self.answer)),
            Weight(self.intake, len(BODY)),
            began=time.perf_counter(),
            drain_s=30,
        )
        await self.relay.run((), self.cycle)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def waits_for_room(one: Relaying, word: bytes) -> None:
    """It ends when its caller reads again, and this word is not written before."""
    await turns()
    assert not one.task.done()
    assert word not in b"".join(one.transport.written)
    one.flow.resume_writing()
    await one.task


async def test_while_a_caller_does_not_read_nothing_more_is_taken() -> None:
    one = Relaying()
    one.answer.before[6] = one.flow.pause_writing
    await turns()
    assert len(one.answer.left) == 5  # what was under way then, and no more
    assert one.intake.buffered == 0  # by now nobody needs what was asked
    one.flow.resume_writing()
    one.flow.pause_writing()
    await turns()
    assert len(one.answer.left) == 5
    one.flow.resume_writing()
    await one.task
    assert b"".join(one.transport.written).count(b"word") == len(FRAMES)
    facts = one.relay.settlement().facts
    assert (facts.outcome, facts.usage) == ("complete", {"input_uncached": 5, "output": 6})
    assert facts.bytes_out == len(b"".join(FRAMES) + DONE)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("waited_s", [READ_WITHIN_S / 2, READ_WITHIN_S + 1])
async def test_a_caller_who_reads_nothing_for_long_has_left(waited_s: float, begun: bool) -> None:
    """In the middle of an answer, or of the one before it."""
    one = Relaying()
    if begun:
        one.answer.before[3] = one.flow.pause_writing
    else:
        one.flow.pause_writing()
    await turns()
    assert len(one.answer.left) == (2 if begun else 7)
    one.relay.look(time.monotonic() + waited_s)
    await turns()
    if waited_s < READ_WITHIN_S:
        assert not one.task.done()
        one.flow.resume_writing()
    await one.task
    assert one.relay.settlement().facts.outcome == ("complete" if waited_s < READ_WITHIN_S else "client_left")


async def test_a_caller_who_does_not_read_a_refusal_either_has_left() -> None:
    one = Relaying(status=400)
    one.flow.pause_writing()
    await turns()
    one.relay.look(time.monotonic() + READ_WITHIN_S + 1)
    async with asyncio.timeout(5):
        await one.task
    assert one.transport.written == []
    assert one.relay.settlement().void


@pytest.mark.parametrize("begun", [True, False])
async def test_a_head_goes_ahead_of_an_answer_that_has_not_begun(begun: bool) -> None:
    one = Relaying(begun=begun)
    written: list[int] = []
    one.answer.before[7] = lambda: written.append(len(one.transport.written))
    await one.task
    assert written == [0 if begun else 1]
    assert one.transport.written[0].endswith(b"\r\n\r\n") is not begun


async def test_the_last_piece_waits_until_there_is_room_for_it() -> None:
    one = Relaying()
    one.answer.before[1] = one.flow.pause_writing
    await waits_for_room(one, b"[DONE]")
    assert b"".join(one.transport.written).endswith(b"[DONE]\n\n\r\n0\r\n\r\n")


async def test_so_does_the_word_that_an_answer_broke_off_and_its_body_has_no_end() -> None:
    one = Relaying()
    one.answer.breaks_at = 3
    one.answer.before[3] = one.flow.pause_writing
    await waits_for_room(one, b"upstream_error")
    written = b"".join(one.transport.written)
    assert (written.count(b"word"), written.count(b"upstream_error")) == (4, 1)
    assert not written.endswith(b"\r\n0\r\n\r\n")
    assert one.relay.settlement().facts.outcome == "upstream_broke"


@pytest.mark.parametrize(("status", "breaks_at"), [(200, -1), (200, 3), (400, -1)])
async def test_however_it_ends_the_answer_is_let_go(status: int, breaks_at: int) -> None:
    one = Relaying(status)
    one.answer.breaks_at = breaks_at
    await one.task
    assert one.answer.dropped == 1


async def test_an_answer_whose_caller_was_cut_off_is_let_go() -> None:
    one = Relaying()
    one.answer.before[3] = one.flow.pause_writing
    await turns()
    one.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one.task
    assert one.answer.dropped == 1
