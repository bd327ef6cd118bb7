"""Requests that ask for another protocol, on a server: what is not ours is ignored, and a WebSocket comes by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from gateway import listener
from gateway.listener import Listener

pytestmark = pytest.mark.wire("6.15")

WEBSOCKET = (
    b"GET /socket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
H2C = (
    b"POST /1 HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings, close\r\nupgrade: h2c\r\n"
    b"http2-settings: AA\r\ncontent-length: %d\r\n\r\n"
)


class Served:
    def __init__(self) -> None:
        self.paths: list[str] = []
        self.may_answer = asyncio.Event()
        self.left = asyncio.Event()
        self.pushed = 0
        self.heard: list[str | None] = []
        self.connections: set[Any] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            self.heard.append((await receive()).get("text"))
            await receive()
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        if scope["path"] == "/stream":
            scope["extensions"]["weir.cycle"].on_left(self.left.set)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while self.pushed < 64 << 20 and not self.left.is_set():
                await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
                self.pushed += 1 << 16
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["path"] == "/begins":
            scope["extensions"]["weir.cycle"].on_left(self.left.set)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await self.may_answer.wait()
            return
        if scope["path"] == "/waits":
            scope["extensions"]["weir.cycle"].on_left(self.left.set)
            await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Served, int]]:
    app = Served()
    config = uvicorn.Config(
        app, http=Listener, interface="asgi3", ws="websockets-sansio", lifespan="off", log_config=None, port=0,
        host="127.0.0.1", timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    app.connections = server.server_state.connections
    try:
        yield app, server.servers[0].sockets[0].getsockname()[1]
    finally:
        app.may_answer.set()
        server.should_exit = True
        await task


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "head first"])
async def test_a_body_behind_an_upgrade_that_is_not_ours_is_the_requests(at_once: bool) -> None:
    """RFC 9110 7.8: a server may ignore Upgrade, and then the request is one like any other."""
    async with listening() as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
        head = H2C % len(body)
        writer.write(head + body if at_once else head)
        if not at_once:
            while not app.paths:
                await asyncio.sleep(0.005)
            writer.write(body)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.transport.abort()
    assert (app.paths, answer.endswith(b"\r\n\r\n" + body)) == (["/1"], True), answer


@pytest.mark.parametrize("field", [b"content-length: 1\r\n", b"transfer-encoding: chunked\r\n"])
async def test_a_handshake_with_a_body_is_answered_or_closed(monkeypatch: pytest.MonkeyPatch, field: bytes) -> None:
    monkeypatch.setattr(listener, "HEAD_WITHIN_S", 0.2)
    async with listening() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WEBSOCKET + field + b"\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)  # until it is closed
        writer.transport.abort()
    assert answer.startswith(b"HTTP/1.1 400")


async def test_a_websocket_is_refused_while_a_request_is_under_way() -> None:
    """It would overtake the answer; whoever serves hears that the caller has left."""
    async with listening() as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /waits HTTP/1.1\r\nhost: a\r\n\r\n")
        while not app.paths:
            await asyncio.sleep(0.005)
        writer.write(WEBSOCKET + b"\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        await asyncio.wait_for(app.left.wait(), 5)
        writer.transport.abort()
    assert (app.paths, answer.partition(b"\r\n")[0]) == (["/waits"], b"HTTP/1.1 400 Bad Request")


@pytest.mark.parametrize("queued", [b"", b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n"], ids=["next", "behind another"])
@pytest.mark.parametrize("refused", [WEBSOCKET + b"\r\n", b"no request\r\n\r\n"], ids=["websocket", "no request"])
async def test_a_refusal_is_no_part_of_an_answer_that_has_begun(queued: bytes, refused: bytes) -> None:
    async with listening() as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /begins HTTP/1.1\r\nhost: a\r\n\r\n")
        begun = await asyncio.wait_for(reader.readuntil(b"begun\r\n"), 5)
        writer.write(queued + refused)
        rest = await asyncio.wait_for(reader.read(), 5)
        await asyncio.wait_for(app.left.wait(), 5)
        writer.transport.abort()
    assert (begun[:12], rest) == (b"HTTP/1.1 200", b"")


async def test_whoever_serves_a_caller_who_does_not_read_hears_of_the_refusal_too() -> None:
    async with listening() as (app, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
        writer.write(b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n")
        pushed = -1
        while pushed != app.pushed or not pushed:
            pushed = app.pushed
            await asyncio.sleep(0.1)
        writer.write(WEBSOCKET + b"\r\n")
        await asyncio.wait_for(app.left.wait(), 5)
        writer.transport.abort()
    assert pushed < 64 << 20


async def test_a_protocol_that_is_not_ours_is_ignored_each_time() -> None:
    """A connection stays in use, as with callers who ask for h2c until they are given it."""
    async with listening() as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (H2C % 2).replace(b", close", b"")
        for _ in range(3):
            writer.write(head + b"{}")
            answer = await asyncio.wait_for(reader.readuntil(b"{}"), 5)
            assert answer.startswith(b"HTTP/1.1 200")
        writer.transport.abort()
    assert app.paths == ["/1"] * 3


async def test_pipelined_requests_that_ask_for_another_protocol_are_served_in_their_order() -> None:
    """However many come in one packet."""
    async with listening() as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (H2C % 2).replace(b", close", b"")
        many = 1500
        writer.write(b"".join([head + b"%02d" % (number % 100) for number in range(many)]))
        for number in range(many):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert await reader.readexactly(2) == b"%02d" % (number % 100)
        writer.transport.abort()
    assert app.paths == ["/1"] * many


async def test_connect_is_refused() -> None:
    async with listening() as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.transport.abort()
    assert (app.paths, answer.partition(b"\r\n")[0]) == ([], b"HTTP/1.1 400 Bad Request")


async def test_what_comes_right_behind_a_handshake_is_the_websockets() -> None:
    """A text frame of two bytes, masked with zeros."""
    async with listening() as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WEBSOCKET + b"\r\n" + b"\x81\x82\0\0\0\0hi")
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 101")
        while not app.heard:
            await asyncio.sleep(0.005)
        assert len(app.connections) == 1  # nobody else is to be ended at a shutdown
        writer.transport.abort()
        while app.connections:
            await asyncio.sleep(0.005)
    assert app.heard == ["hi"]
