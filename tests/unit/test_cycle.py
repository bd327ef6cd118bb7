"""An answer on a caller's connection: what is written, when, and what is not HTTP is never written."""

import asyncio
from typing import Any

import pytest

from gateway.cycle import Cycle
from gateway.flow import Flow

Pairs = list[tuple[bytes, bytes]]


class Transport(asyncio.Transport):
    """Keeps what is written, a piece a write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        raise AssertionError

    resume_reading = pause_reading


def cycle(method: str = "POST", *, keep_alive: bool = True) -> tuple[Cycle, Transport, list[str]]:
    transport, ended = Transport(), list[str]()
    made = Cycle(
        {"type": "http", "method": method},
        transport,
        Flow(transport),
        keep_alive=keep_alive,
        expects_100=False,
        on_response=lambda: ended.append("ended"),
    )
    return made, transport, ended


async def start(made: Cycle, headers: Pairs, status: int = 200) -> None:
    await made.send({"type": "http.response.start", "status": status, "headers": headers})


async def piece(made: Cycle, body: bytes, *, more: bool = False) -> None:
    await made.send({"type": "http.response.body", "body": body, "more_body": more})


async def test_head_and_body_leave_together() -> None:
    made, transport, ended = cycle()
    await start(made, [(b"content-length", b"2"), (b"x-a", b"b")])
    assert transport.written == []
    await piece(made, b"ok")
    assert transport.written == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\n\r\nok"]
    assert (made.response_complete, ended, transport.closed) == (True, ["ended"], False)


async def test_an_empty_piece_sends_the_head_and_each_other_is_a_chunk() -> None:
    made, transport, _ = cycle()
    await start(made, [])
    await piece(made, b"", more=True)
    await piece(made, b"0123456789", more=True)
    await piece(made, b"last")
    assert transport.written == [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"a\r\n0123456789\r\n",
        b"4\r\nlast\r\n0\r\n\r\n",
    ]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-a", b"b\r\nset-cookie: c")],
        [(b"x-a", b"b\nc")],
        [(b"x-a\r\nx-b", b"c")],
        [(b"x-a", b"\0")],
        [(b"x-a", b"\r")],
    ],
)
async def test_no_header_breaks_out_of_its_line(headers: Pairs) -> None:
    made, transport, _ = cycle()

    async def application(_scope: Any, _receive: Any, _send: Any) -> None:
        await start(made, headers)
        await piece(made, b"")

    await made.run_asgi(application)
    assert b"".join(transport.written).startswith(b"HTTP/1.1 500 ")
    assert b"x-a" not in b"".join(transport.written)


@pytest.mark.parametrize(("length", "body", "more"), [(b"3", b"ok", False), (b"1", b"ok", True), (b"0", b"ok", False)])
async def test_an_answer_of_another_length_than_it_says_is_cut(length: bytes, body: bytes, more: bool) -> None:
    made, transport, ended = cycle()

    async def application(_scope: Any, _receive: Any, _send: Any) -> None:
        await start(made, [(b"content-length", length)])
        await piece(made, body, more=more)

    await made.run_asgi(application)
    assert (transport.closed, ended, made.response_complete) == (True, [], False)


async def test_an_answer_that_is_not_ended_is_cut() -> None:
    made, transport, ended = cycle()

    async def application(_scope: Any, _receive: Any, _send: Any) -> None:
        await start(made, [])
        await piece(made, b"half", more=True)

    await made.run_asgi(application)
    assert (transport.written[-1][-8:], transport.closed, ended) == (b"\r\nhalf\r\n", True, [])


async def test_an_answer_begins_once() -> None:
    made, transport, _ = cycle()
    await start(made, [])
    with pytest.raises(RuntimeError):
        await start(made, [(b"x-a", b"b")])
    await piece(made, b"")
    assert b"x-a" not in b"".join(transport.written)


async def test_what_is_sent_waits_until_the_caller_has_room() -> None:
    made, transport, _ = cycle()
    await start(made, [])
    made.flow.pause_writing()
    sending = asyncio.create_task(piece(made, b"1", more=True))
    await asyncio.sleep(0)
    assert transport.written == []
    made.flow.resume_writing()
    await sending
    assert b"".join(transport.written).endswith(b"\r\n1\r\n1\r\n")


async def test_a_connection_that_is_not_kept_says_so_and_closes() -> None:
    for keep_alive, headers in ((False, Pairs()), (True, [(b"connection", b"Close")])):
        made, transport, _ = cycle(keep_alive=keep_alive)
        await start(made, [*headers, (b"content-length", b"0")])
        await piece(made, b"")
        assert transport.closed
        assert transport.written[0].lower().count(b"connection: close") == 1


async def test_head_and_no_content_have_no_body() -> None:
    for method, status in (("HEAD", 200), ("POST", 204), ("POST", 304)):
        made, transport, _ = cycle(method)
        await start(made, [], status)
        await piece(made, b"")
        assert b"".join(transport.written).endswith(b"\r\n\r\n")
        assert b"chunked" not in transport.written[0]


async def test_whoever_serves_is_told_once_that_the_caller_has_left() -> None:
    made, transport, _ = cycle()
    told: list[str] = []
    made.on_left(lambda: told.append("left"))
    made.leave()
    assert told == ["left"]
    assert await made.receive() == {"type": "http.disconnect"}
    await start(made, [])
    await piece(made, b"nobody hears this")
    assert transport.written == []


async def test_a_body_is_taken_at_once_only_if_it_is_whole() -> None:
    made, _, _ = cycle()
    made.body += b"half"
    assert made.take_body() is None
    made.body += b" and half"
    made.more_body = False
    assert made.take_body() == b"half and half"


async def test_a_pushed_piece_is_written_at_once_and_says_when_to_wait() -> None:
    made, transport, _ = cycle()
    await start(made, [])
    assert made.push(b"1")
    made.flow.pause_writing()
    assert not made.push(b"2")
    assert b"".join(transport.written).endswith(b"\r\n\r\n1\r\n1\r\n1\r\n2\r\n")
    waiting = asyncio.create_task(made.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    made.flow.resume_writing()
    await waiting
    assert made.push(b"3")


async def test_nothing_is_pushed_to_a_caller_who_has_left_and_nobody_waits_for_them() -> None:
    made, transport, _ = cycle()
    await start(made, [])
    made.flow.pause_writing()
    made.leave()
    assert made.push(b"nobody hears this")
    await made.drained()
    assert transport.written == []
