"""Ours against an upstream that breaks every rule: each answer is its own request's, and nothing is left behind."""

import asyncio
import gc
import ssl
from collections.abc import Callable
from ipaddress import IPv4Address

import httpx2
import pytest

from gateway.upstream.transport import Endpoint, FastTransport, RawResponse, Timeouts
from tests.integration.upstream.peers import OK, Authority, Peer, Upstream, answers, bare, upstream

SHORT = Timeouts(connect=0.05, read=0.05, write=0.05, pool=0.05)
LONG = Timeouts(5, 5, 5, 5)
FOREIGN = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nFOREIGN"


async def ask(fast: FastTransport, server: Upstream, timeouts: Timeouts = LONG, body: bytes = b"{}") -> bytes:
    response = await fast.send(Endpoint(server.url), body=body, timeouts=timeouts)
    return b"".join([chunk async for chunk in response])


WIRES = {
    "101": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "not HTTP": b"SSH-2.0-x\r\n",
    "length and chunked": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "bare LF": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "NUL in a header": b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
    "header flood": b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 10_000,
    "endless header": b"HTTP/1.1 200 OK\r\nx-a: " + b"b" * 100_000,
    "negative chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
    "huge chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\nx",
}


@pytest.mark.parametrize("name", WIRES)
async def test_what_is_not_http_ends_the_connection(fast: FastTransport, name: str) -> None:
    """At once: the upstream keeps its end open, and no timeout is needed."""
    async with upstream(answers(WIRES[name])) as server:
        with pytest.raises(httpx2.RemoteProtocolError):
            await ask(fast, server, Timeouts(5, None, 5, 5))
        await server.until(lambda: not server.open)
        assert fast.stats.violations == 1


@pytest.mark.parametrize("behind", [b"\r\n", b"garbage", FOREIGN, FOREIGN[:20]])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bytes_behind_an_answer_reach_nobody(fast: FastTransport, behind: bytes, chunked: bool) -> None:
    wire = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" if chunked else OK
    async with upstream(answers(wire + behind)) as server:
        for number in range(1, 4):
            assert await ask(fast, server) == b"ok"
            assert len(server.peers) == number


@pytest.mark.parametrize("what", [b"\r\n", FOREIGN, b""])
async def test_an_idle_connection_that_says_something_or_ends(fast: FastTransport, what: bytes) -> None:
    """Noticed by the loop if there is time, and by the poll if there is none."""
    async with upstream(answers(OK)) as server:
        for hurried in (False, True):
            assert await ask(fast, server) == b"ok"
            peer = server.peers[-1]
            if what:
                peer.send_now(what)
            else:
                peer.half_close_now()
            if not hurried:
                await peer.done
                assert fast.counts["open"] == 0
            before = len(server.peers)
            assert await ask(fast, server) == b"ok"
            assert len(server.peers) == before + 1
        assert (fast.stats.unsolicited, fast.stats.stale) == (1 if what else 0, 1)


async def test_a_request_is_never_written_twice(fast: FastTransport) -> None:
    seen: list[bytes] = []

    async def play(peer: Peer) -> None:
        seen.append((await peer.request())[1])
        peer.send(OK)
        seen.append((await peer.request())[1])
        peer.rst()

    async with upstream(play) as server:
        assert await ask(fast, server, body=b"1") == b"ok"
        with pytest.raises(httpx2.ReadError):
            await ask(fast, server, body=b"2")
        assert seen == [b"1", b"2"]


async def test_a_head_that_trickles_is_given_its_time_and_no_more(fast: FastTransport) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        for byte in FOREIGN:
            peer.send(bytes((byte,)))
            await asyncio.sleep(0.01)  # the slowness itself
        await peer.left()

    async with upstream(play) as server:
        with pytest.raises(httpx2.ReadTimeout):
            await ask(fast, server, Timeouts(5, 0.1, 5, 5))
        await server.until(lambda: not server.open)


async def test_an_answer_that_takes_too_long_in_all(fast: FastTransport) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            peer.send(b"x")
            await peer.writer.drain()
            await asyncio.sleep(0.005)  # never idle for long

    async with upstream(play) as server:
        with pytest.raises(httpx2.ReadTimeout):
            await ask(fast, server, LONG._replace(total=0.1))
        await server.until(lambda: not server.open)


async def test_a_refusal_before_the_request_is_sent(fast: FastTransport) -> None:
    async def play(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await peer.writer.drain()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await gone

    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with upstream(play) as server:
        response = await fast.send(Endpoint(server.url), body=bytes(32 << 20), timeouts=LONG)
        assert (response.status, await response.next_chunk()) == (413, b"big")
        assert fast.counts["open"] == 0


async def test_expectations_are_not_waited_for(fast: FastTransport) -> None:
    async def play(peer: Peer) -> None:
        assert b"expect: 100-continue" in (await peer.request())[0].lower()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        await peer.left()

    async with upstream(play) as server:
        headers = {"expect": "100-continue"}
        request = httpx2.Request("POST", server.url, headers=headers, content=b"x")
        assert await (await fast.handle_async_request(request)).aread() == b"ok"


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nconnection: close\r\n"])
async def test_a_server_that_will_close_is_believed(fast: FastTransport, head: bytes) -> None:
    async with upstream(answers(head + b"content-length: 2\r\n\r\nok")) as server:
        for number in range(1, 4):
            assert await ask(fast, server) == b"ok"
            assert len(server.peers) == number


async def test_a_slow_reader_holds_the_upstream_back(fast: FastTransport) -> None:
    size, sent = 64 << 20, 0

    async def play(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            peer.send(bytes(1 << 16))
            sent += 1 << 16
            await peer.writer.drain()
        await peer.left()

    async with upstream(play) as server:
        response = await fast.send(Endpoint(server.url), timeouts=LONG)
        before = -1
        while sent > before:
            before = sent
            await turns(50)
        assert sent < size // 2  # the kernel's buffers, and a quarter of a megabyte here
        got, largest = 0, 0
        async for chunk in response:
            got, largest = got + len(chunk), max(largest, len(chunk))
        assert got == size
        assert largest < 1 << 20


async def turns(count: int) -> None:
    """Of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_an_answer_that_is_dropped_closes_its_connection(fast: FastTransport) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        await peer.left()

    async with upstream(play) as server:
        response: RawResponse | None = await fast.send(Endpoint(server.url), timeouts=LONG)
        assert fast.counts["busy"] == 1
        del response
        gc.collect()
        assert fast.counts["open"] == 0
        await server.until(lambda: not server.open)


async def test_idle_connections_expire() -> None:
    told = b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=5, max=9\r\ncontent-length: 2\r\n\r\nok"
    fast = FastTransport(bare(), keepalive_s=0.02)
    async with fast, upstream(answers(told)) as server:
        assert await ask(fast, server) == b"ok"
        assert fast.counts["idle"] == 1
        await server.until(lambda: not server.open)
        assert fast.counts == {"busy": 0, "idle": 0, "waiting": 0, "open": 0}
    hint = told.replace(b"timeout=5", b"timeout=0")
    async with FastTransport(bare(), keepalive_s=60) as fast, upstream(answers(hint)) as server:
        assert await ask(fast, server) == b"ok"
        await server.until(lambda: not server.open)


async def test_old_connections_retire_and_names_are_looked_up_anew(authority: Authority) -> None:
    asked: list[str] = []

    async def resolve(name: str, port: int) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"] if len(asked) % 2 else ["127.0.0.2"]

    named: list[str | None] = []
    tls = authority.server("api.example.com")
    tls.sni_callback = lambda _socket, name, _context: named.append(name)
    async with (
        FastTransport(authority.trust(), max_age_s=0, resolve=resolve) as fast,
        upstream(answers(OK), tls=tls) as one,
        upstream(answers(OK), host="127.0.0.2", port=one.port, tls=tls) as two,
    ):
        endpoint = Endpoint(f"https://api.example.com:{one.port}/")
        for _ in range(4):
            response = await fast.send(endpoint, timeouts=LONG)
            assert await response.next_chunk() == b"ok"
        assert (len(one.peers), len(two.peers), asked) == (2, 2, ["api.example.com"] * 4)
        assert fast.stats.resumed == 3  # of the four TLS sessions all but the first go on with one before
        assert named == ["api.example.com"] * 4


@pytest.mark.parametrize("first", ["refuses", "is silent"])
async def test_the_next_address_is_tried(authority: Authority, first: str) -> None:
    """At once if one refuses, beside it if one says nothing."""

    async def resolve(name: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with (
        FastTransport(authority.trust(), resolve=resolve) as fast,
        upstream(answers(OK), tls=authority.server("api.example.com")) as good,
    ):
        endpoint = Endpoint(f"https://api.example.com:{good.port}/")
        if first == "refuses":
            assert await (await fast.send(endpoint, timeouts=LONG)).next_chunk() == b"ok"
            return
        async with upstream(Peer.left, host="127.0.0.2", port=good.port) as silent:
            assert await (await fast.send(endpoint, timeouts=LONG)).next_chunk() == b"ok"
            await silent.until(lambda: len(silent.peers) == 1 and not silent.open)


@pytest.mark.parametrize("found", [["127.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["::ffff:10.0.0.1"]])
async def test_addresses_that_are_not_allowed(found: list[str]) -> None:
    async def resolve(name: str, port: int) -> list[str]:
        return found

    private = [IPv4Address("10.0.0.1")]
    async with (
        FastTransport(bare(), resolve=resolve, allow_address=lambda address: address not in private) as fast,
        upstream(answers(OK)) as server,
    ):
        endpoint = Endpoint(f"http://a.example:{server.port}/")
        if found == ["127.0.0.1"]:
            assert await (await fast.send(endpoint, timeouts=LONG)).next_chunk() == b"ok"
            return
        with pytest.raises(httpx2.ConnectError, match="not allowed"):
            await fast.send(endpoint, timeouts=LONG)
        assert server.peers == []
        with pytest.raises(httpx2.ConnectError, match="not allowed"):
            await fast.send(Endpoint("http://10.0.0.1/"), timeouts=LONG)


async def test_cancelling_leaves_nothing_wherever_it_strikes(authority: Authority) -> None:
    """After every number of turns of the loop that a request takes, over TLS and with one slot that others wait for."""

    async def play(peer: Peer) -> None:
        while (await peer.request())[0]:
            for piece in (OK[:30], OK[30:-1], OK[-1:]):
                await turns(2)
                peer.send(piece)
                await peer.writer.drain()

    fast = FastTransport(authority.trust(), max_connections=1)
    async with fast, upstream(play, tls=authority.server("127.0.0.1")) as server:
        finished = 0
        for count in range(80):
            for crowd, victims in ((3, (0, 1)), (2, (1,))):
                asked = [asyncio.create_task(ask(fast, server)) for _ in range(crowd)]
                await turns(count)
                for victim in victims:
                    asked[victim].cancel()
                results = await asyncio.gather(*asked, return_exceptions=True)
                left = [results[number] for number in range(crowd) if number not in victims]
                assert left == [b"ok"], (count, results)
                finished += results[victims[0]] == b"ok"
                assert (fast.counts["busy"], fast.counts["waiting"]) == (0, 0)
        assert finished  # so the last were cancelled too late, and everything before was cut through
    assert fast.counts == {"busy": 0, "idle": 0, "waiting": 0, "open": 0}
    await server.until(lambda: not server.open)


async def test_closing_the_transport_ends_what_is_in_flight() -> None:
    async with upstream(Peer.left) as server:
        fast = FastTransport(bare(), max_connections=1)
        asked = [asyncio.create_task(ask(fast, server)) for _ in range(2)]
        await server.until(lambda: server.open == 1)
        await fast.aclose()
        first, second = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(first, httpx2.ReadError)
        assert isinstance(second, httpx2.PoolTimeout)
        with pytest.raises(httpx2.PoolTimeout):
            await ask(fast, server)
        assert fast.counts == {"busy": 0, "idle": 0, "waiting": 0, "open": 0}


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    return context


def trusting() -> ssl.SSLContext:
    context = unverified()
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("context", [unverified, trusting])
def test_a_context_that_does_not_verify_is_refused(context: Callable[[], ssl.SSLContext]) -> None:
    with pytest.raises(ValueError, match="verified"):
        FastTransport(context())
