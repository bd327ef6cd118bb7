"""What every transport must do, the stock one and ours alike."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from bench.provider import Behaviour, ScriptedProvider
from gateway.upstream.transport import FastTransport
from tests.integration.upstream.peers import OK, Authority, Peer, answers, bare, upstream

Make = Callable[..., httpx2.AsyncBaseTransport]
KEY = {"authorization": "Bearer k"}
STREAM = b'{"model":"m","stream":true}'
MANY = 8 * 1024 * 1024


def stock(context: ssl.SSLContext | None = None, *, max_connections: int = 100) -> httpx2.AsyncBaseTransport:
    limits = httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    return httpx2.AsyncHTTPTransport(verify=context or bare(), limits=limits, trust_env=False)


@pytest.fixture(params=["stock", "fast"])
def make(request: pytest.FixtureRequest) -> Make:
    return stock if request.param == "stock" else FastTransport


@pytest.fixture
async def transport(make: Make) -> AsyncIterator[httpx2.AsyncBaseTransport]:
    async with closing(make(bare())) as made:
        yield made


@asynccontextmanager
async def closing(transport: httpx2.AsyncBaseTransport) -> AsyncIterator[httpx2.AsyncBaseTransport]:
    async with transport:
        yield transport
        if isinstance(transport, FastTransport):
            assert (transport.counts["busy"], transport.counts["waiting"]) == (0, 0)
    if isinstance(transport, FastTransport):
        assert transport.counts["open"] == 0


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider(record_bodies=True) as running:
        yield running


def ask(url: str, body: Any = b"{}", method: str = "POST", **timeout: float) -> httpx2.Request:
    extensions = {"timeout": {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0, **timeout}}
    return httpx2.Request(method, url, headers=KEY, content=body, extensions=extensions)


def chat(provider: ScriptedProvider, body: bytes = STREAM, **timeout: float) -> httpx2.Request:
    return ask(f"{provider.url}/v1/chat/completions", body, "POST", **timeout)


async def whole(transport: httpx2.AsyncBaseTransport, request: httpx2.Request) -> tuple[int, bytes]:
    response = await transport.handle_async_request(request)
    return response.status_code, await response.aread()


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("pace_s", [0.0, 0.001])
async def test_every_framing(
    transport: httpx2.AsyncBaseTransport, provider: ScriptedProvider, framing: str, pace_s: float
) -> None:
    provider.script(Behaviour(framing=framing, pace_s=pace_s))  # type: ignore[arg-type]
    bodies = set()
    for _ in range(3):
        response = await transport.handle_async_request(chat(provider))
        assert response.extensions["http_version"] == b"HTTP/1.1"
        assert response.headers["content-type"].startswith("text/event-stream")
        assert (await response.aread()).endswith(b"data: [DONE]\n\n")
        bodies.add(response.content.count(b"data:"))
    assert len(bodies) == 1
    assert [seen.outcome for seen in provider.seen] == ["answered"] * 3


async def test_connections_are_kept(transport: httpx2.AsyncBaseTransport) -> None:
    async with upstream(answers(OK)) as server:
        for _ in range(20):
            assert await whole(transport, ask(server.url)) == (200, b"ok")
        assert len(server.peers) == 1


async def test_1xx_before_the_answer(transport: httpx2.AsyncBaseTransport) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    async with upstream(answers(early + OK)) as server:
        for _ in range(2):
            response = await transport.handle_async_request(ask(server.url))
            assert (response.status_code, await response.aread(), "link" in response.headers) == (200, b"ok", False)
        assert len(server.peers) == 1


@pytest.mark.parametrize(
    ("method", "wire", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", 200),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304),
        ("DELETE", b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 404),
    ],
)
async def test_answers_without_a_body(
    transport: httpx2.AsyncBaseTransport, method: str, wire: bytes, status: int
) -> None:
    async with upstream(answers(wire)) as server:
        for _ in range(2):
            assert await whole(transport, ask(server.url, None, method)) == (status, b"")
        assert len(server.peers) == 1


async def test_large_bodies_both_ways(transport: httpx2.AsyncBaseTransport) -> None:
    sent = bytes(range(256)) * (MANY // 256)
    got = []

    async def play(peer: Peer) -> None:
        while (request := await peer.request())[0]:
            got.append(request[1])
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(request[1]))
            peer.send(request[1])
            await peer.writer.drain()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, MANY, 1 << 20):
            yield sent[start : start + (1 << 20)]

    async with upstream(play) as server:
        assert await whole(transport, ask(server.url, sent)) == (200, sent)
        assert await whole(transport, ask(server.url, pieces())) == (200, sent)
        assert got == [sent, sent]
        assert len(server.peers) == 1


async def test_a_server_that_closes_an_idle_connection(transport: httpx2.AsyncBaseTransport) -> None:
    async def play(peer: Peer) -> None:
        if (await peer.request())[0]:
            peer.send(OK)
            await peer.writer.drain()
            peer.fin()

    async with upstream(play) as server:
        for number in range(1, 6):
            assert await whole(transport, ask(server.url)) == (200, b"ok")
            await server.until(lambda n=number: len(server.peers) == n and not server.open)  # type: ignore[misc]


async def test_tls_with_verification(make: Make, authority: Authority) -> None:
    async with closing(make(authority.trust())) as transport:
        async with upstream(answers(OK), tls=authority.server("127.0.0.1")) as server:
            for _ in range(3):
                assert await whole(transport, ask(server.url)) == (200, b"ok")
            assert len(server.peers) == 1
        async with upstream(answers(OK), host="localhost", tls=authority.server("localhost")) as server:
            assert await whole(transport, ask(server.url)) == (200, b"ok")


@pytest.mark.parametrize("case", ["another name", "another authority"])
async def test_tls_that_is_not_to_be_trusted(make: Make, authority: Authority, case: str) -> None:
    name = "example.com" if case == "another name" else "127.0.0.1"
    trust = authority.trust() if case == "another name" else bare()
    async with closing(make(trust)) as transport, upstream(answers(OK), tls=authority.server(name)) as server:
        with pytest.raises(httpx2.ConnectError):
            await transport.handle_async_request(ask(server.url))
        assert server.peers == []


async def test_nobody_there(transport: httpx2.AsyncBaseTransport) -> None:
    async with upstream(answers(OK)) as server:
        url = server.url
    for target in (url, "http://no-such-host.invalid/"):
        with pytest.raises(httpx2.ConnectError):
            await transport.handle_async_request(ask(target))


async def test_no_first_byte_in_time(transport: httpx2.AsyncBaseTransport, provider: ScriptedProvider) -> None:
    provider.script(Behaviour(gate=True))
    with pytest.raises(httpx2.ReadTimeout):
        await transport.handle_async_request(chat(provider, read=0.05))
    await provider.wait_for(lambda p: not p.stats.open_connections)


async def test_a_stall_in_the_middle(transport: httpx2.AsyncBaseTransport, provider: ScriptedProvider) -> None:
    provider.script(Behaviour(stall_after_chunks=2))
    response = await transport.handle_async_request(chat(provider, read=0.05))
    with pytest.raises(httpx2.ReadTimeout):
        await response.aread()
    await provider.wait_for(lambda p: not p.stats.open_connections)


async def test_a_handshake_that_never_ends(make: Make, authority: Authority) -> None:
    async with closing(make(authority.trust())) as transport, upstream(Peer.left) as server:
        with pytest.raises(httpx2.ConnectTimeout):
            await transport.handle_async_request(ask(server.url.replace("http:", "https:"), connect=0.05))
        await server.until(lambda: not server.open)


async def test_a_server_that_does_not_read(transport: httpx2.AsyncBaseTransport) -> None:
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def play(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await never

    async with upstream(play) as server:
        with pytest.raises(httpx2.WriteTimeout):
            await transport.handle_async_request(ask(server.url, bytes(64 * 1024 * 1024), write=0.1))


async def test_connections_are_bounded_and_shared_fairly(make: Make, provider: ScriptedProvider) -> None:
    provider.script(Behaviour(gate=True))
    order: list[int] = []
    async with closing(make(bare(), max_connections=3)) as transport:

        async def one(number: int) -> None:
            assert (await whole(transport, chat(provider)))[0] == 200
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(one(number))
            await provider.wait_for(lambda p: p.stats.held == 3)
            with pytest.raises(httpx2.PoolTimeout):
                await transport.handle_async_request(chat(provider, pool=0.05))
            for number in range(3, 30):
                group.create_task(one(number))
            for left in range(30, 0, -1):
                held = min(left, 3)
                await provider.wait_for(lambda p, held=held: p.stats.held == held)  # type: ignore[misc]
                assert provider.stats.open_connections <= 3
                provider.release(1)
    assert order == sorted(order)


@pytest.mark.parametrize("stage", ["before the head", "in the body"])
async def test_cancelling_closes_the_connection(
    transport: httpx2.AsyncBaseTransport, provider: ScriptedProvider, stage: str
) -> None:
    provider.script(Behaviour(gate=True) if stage == "before the head" else Behaviour(stall_after_chunks=1))
    task = asyncio.create_task(whole(transport, chat(provider)))
    await provider.wait_for(lambda p: p.stats.held == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await provider.wait_for(lambda p: p.seen[0].outcome == "client_left" and not p.stats.open_connections)
    provider.script(Behaviour())
    assert (await whole(transport, chat(provider)))[0] == 200


async def test_closing_before_the_end_closes_the_connection(
    transport: httpx2.AsyncBaseTransport, provider: ScriptedProvider
) -> None:
    provider.script(Behaviour(stall_after_chunks=1))
    response = await transport.handle_async_request(chat(provider))
    await response.aclose()
    await provider.wait_for(lambda p: p.seen[0].outcome == "client_left" and not p.stats.open_connections)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_breaks_off(
    transport: httpx2.AsyncBaseTransport, provider: ScriptedProvider, framing: str, reset: bool
) -> None:
    provider.queue(Behaviour(cut_after_chunks=2, framing=framing, reset=reset))  # type: ignore[arg-type]
    response = await transport.handle_async_request(chat(provider))
    with pytest.raises(httpx2.ReadError if reset else httpx2.RemoteProtocolError):
        await response.aread()
    assert (await whole(transport, chat(provider)))[0] == 200


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_breaks_before_the_answer(
    transport: httpx2.AsyncBaseTransport, provider: ScriptedProvider, reset: bool
) -> None:
    """Never asked again by the transport: the provider may have billed it."""
    assert (await whole(transport, chat(provider)))[0] == 200
    provider.queue(Behaviour(cut_before_answer=True, reset=reset))
    with pytest.raises(httpx2.ReadError if reset else httpx2.RemoteProtocolError):
        await transport.handle_async_request(chat(provider))
    assert provider.stats.requests == 2
