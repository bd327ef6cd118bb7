"""An answer that is relayed piece by piece, from one socket's callback to the other's write."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest

from gateway.upstream.client import Answer, make_sender
from gateway.upstream.connection import HIGH_WATER, Connection
from gateway.upstream.transport import Endpoint, FastTransport, Timeouts
from tests.integration.upstream.peers import Peer, bare, upstream

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LONG = Timeouts(5, 5, 5, 5)
Play = Callable[[Peer], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Pieces:
    """A server that says each piece when the test asks for it, and `b""` for the end."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[bytes] = asyncio.Queue()

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._told.put_nowait(piece)

    async def play(self, peer: Peer) -> None:
        await peer.request()
        telling = asyncio.create_task(self._tell(peer))
        await peer.left()
        telling.cancel()

    async def _tell(self, peer: Peer) -> None:
        peer.send(HEAD)
        while piece := await self._told.get():
            peer.send(chunk(piece))
        peer.send(chunk(b""))


class Taker:
    """Takes pieces, and says no when it has so many of them; from which task it was called."""

    def __init__(self, *, most: int = 10**9) -> None:
        self.got: list[bytes] = []
        self.tasks: list[asyncio.Task[None] | None] = []
        self.most = most
        self._moved = asyncio.Event()

    def __call__(self, piece: bytes) -> bool:
        self.got.append(piece)
        self.tasks.append(asyncio.current_task())
        self._moved.set()
        return len(self.got) < self.most

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.got) < count:
                self._moved.clear()
                await self._moved.wait()


@pytest.fixture(params=["fast", "httpx2"])
async def asked(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[str], Awaitable[Answer]]]:
    sender = make_sender(request.param, bare(), public_only=False)
    yield lambda url: sender.post(url, [], b"{}")
    await sender.aclose()


async def test_each_piece_is_handed_on_as_it_comes(asked: Callable[[str], Awaitable[Answer]]) -> None:
    pieces, take = Pieces(), Taker()
    async with upstream(pieces.play) as server:
        answer = await asked(server.url)
        relaying = asyncio.create_task(answer.relay(take))
        for number in range(1, 4):
            pieces.say(b"%d" % number)
            await take.until(number)
        pieces.say(b"")
        assert await relaying is False
    assert take.got == [b"1", b"2", b"3"]


async def test_who_says_no_is_left_alone_until_it_asks_again(asked: Callable[[str], Awaitable[Answer]]) -> None:
    pieces, take = Pieces(), Taker(most=1)
    async with upstream(pieces.play) as server:
        answer = await asked(server.url)
        pieces.say(b"1")
        assert await answer.relay(take) is True
        pieces.say(b"2", b"3", b"")
        for _ in range(100):
            await asyncio.sleep(0)
        assert take.got == [b"1"]
        take.most = 10**9
        assert await answer.relay(take) is False
    assert b"".join(take.got) == b"123"


async def test_what_broke_off_is_an_error_after_what_had_come(asked: Callable[[str], Awaitable[Answer]]) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(HEAD + chunk(b"half"))
        await peer.writer.drain()
        await take.until(1)
        peer.fin()

    take = Taker()
    async with upstream(play) as server:
        answer = await asked(server.url)
        with pytest.raises(httpx2.RemoteProtocolError):
            await answer.relay(take)
        answer.drop()
    assert take.got == [b"half"]


async def test_an_answer_that_is_dropped_is_not_read_on(asked: Callable[[str], Awaitable[Answer]]) -> None:
    """Whatever became of it: its upstream sees that nobody listens any more."""
    pieces, take = Pieces(), Taker(most=1)
    async with upstream(pieces.play) as server:
        answer = await asked(server.url)
        pieces.say(b"1")
        assert await answer.relay(take)
        assert server.open
        answer.drop()
        await server.until(lambda: not server.open)


async def test_who_says_no_to_the_last_piece_is_told_that_there_is_no_more(fast: FastTransport) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(HEAD + chunk(b"all") + chunk(b""))
        await peer.left()

    take = Taker(most=1)
    async with upstream(play) as server:
        answer = await fast.send(Endpoint(server.url), timeouts=LONG)
        assert await answer.relay(take) is False
    assert take.got == [b"all"]


async def test_a_last_piece_that_comes_with_the_end_is_the_last(fast: FastTransport) -> None:
    """Nothing comes after it that would wake whoever waits."""

    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(HEAD)
        await waits.wait()
        peer.send(chunk(b"all") + chunk(b""))
        await peer.left()

    waits, take = asyncio.Event(), Taker()
    async with upstream(play) as server:
        answer = await fast.send(Endpoint(server.url), timeouts=LONG)
        relaying = asyncio.create_task(answer.relay(take))
        await asyncio.sleep(0)
        waits.set()
        async with asyncio.timeout(3):
            assert await relaying is False
    assert take.got == [b"all"]


async def test_who_takes_everything_never_stops_the_upstream(
    fast: FastTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much it is in all."""
    stopped: list[str] = []
    monkeypatch.setattr(Connection, "_reading", lambda _, verb: stopped.append(verb))
    pieces, take = Pieces(), Taker()
    async with upstream(pieces.play) as server:
        answer = await fast.send(Endpoint(server.url), timeouts=LONG)
        relaying = asyncio.create_task(answer.relay(take))
        for number in range(1, 41):
            pieces.say(bytes(HIGH_WATER // 16))
            await take.until(number)
        pieces.say(b"")
        assert await relaying is False
    assert stopped == []


async def test_no_task_is_woken_for_a_piece(fast: FastTransport) -> None:
    pieces, take = Pieces(), Taker()
    async with upstream(pieces.play) as server:
        answer = await fast.send(Endpoint(server.url), timeouts=LONG)
        relaying = asyncio.create_task(answer.relay(take))
        await asyncio.sleep(0)
        for number in range(1, 4):
            pieces.say(b"%d" % number)
            await take.until(number)
        pieces.say(b"")
        assert await relaying is False
        assert answer._exchange._sink is None  # else the two would know each other, and be the collector's
    assert take.tasks == [None, None, None]


async def test_an_error_of_the_taker_is_raised_where_it_waits(fast: FastTransport) -> None:
    def take(piece: bytes) -> bool:
        raise LookupError(piece)

    pieces = Pieces()
    async with upstream(pieces.play) as server:
        answer = await fast.send(Endpoint(server.url), timeouts=LONG)
        relaying = asyncio.create_task(answer.relay(take))
        await asyncio.sleep(0)
        pieces.say(b"1")
        with pytest.raises(LookupError, match="1"):
            await relaying
        await answer.aclose()
        await server.until(lambda: not server.open)


@pytest.mark.parametrize("wants_more", [True, False])
async def test_whoever_is_cancelled_gets_nothing_more(fast: FastTransport, wants_more: bool) -> None:
    """As a caller who leaves: in the very callback in which a piece of theirs was to be written."""
    pieces = Pieces()

    def take(piece: bytes) -> bool:
        got.append(piece)
        relaying.cancel()
        return wants_more

    got: list[bytes] = []
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    async with upstream(pieces.play) as server:
        answer = await fast.send(Endpoint(server.url), timeouts=LONG)
        relaying = asyncio.create_task(answer.relay(take))
        await asyncio.sleep(0)
        pieces.say(b"1", b"2")
        with pytest.raises(asyncio.CancelledError):
            await relaying
        await answer.aclose()
        await server.until(lambda: not server.open)
    assert (got, failed) in (([b"1"], []), ([b"12"], []))


@pytest.mark.parametrize("total", [None, 30.0])
async def test_a_stream_may_last_longer_than_any_of_its_pauses(fast: FastTransport, total: float | None) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(HEAD)
        for _ in range(60):
            peer.send(chunk(b"x"))
            await asyncio.sleep(0.01)  # the slowness itself
        peer.send(chunk(b""))
        await peer.left()

    take = Taker()
    async with upstream(play) as server:
        answer = await fast.send(Endpoint(server.url), timeouts=Timeouts(5, 0.3, 5, 5, total))
        assert await answer.relay(take) is False
    assert b"".join(take.got) == b"x" * 60


@pytest.mark.parametrize("timeouts", [Timeouts(5, 0.05, 5, 5), Timeouts(5, 5, 5, 5, 0.05)])
async def test_a_stall_ends_it(fast: FastTransport, timeouts: Timeouts) -> None:
    pieces, take = Pieces(), Taker()
    async with upstream(pieces.play) as server:
        answer = await fast.send(Endpoint(server.url), timeouts=timeouts)
        pieces.say(b"1")
        with pytest.raises(httpx2.ReadTimeout):
            await answer.relay(take)
        await server.until(lambda: not server.open)
    assert take.got == [b"1"]


async def test_an_answer_that_takes_too_long_in_all_however_steadily(fast: FastTransport) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(HEAD)
        while True:
            peer.send(chunk(b"x"))
            await peer.writer.drain()
            await asyncio.sleep(0.005)  # never idle for long

    async with upstream(play) as server:
        answer = await fast.send(Endpoint(server.url), timeouts=LONG._replace(total=0.2))
        with pytest.raises(httpx2.ReadTimeout):
            await answer.relay(Taker())
        await server.until(lambda: not server.open)


async def test_a_taker_that_pauses_holds_the_upstream_back(fast: FastTransport) -> None:
    size, sent = 32 << 20, 0

    async def play(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        peer.send(HEAD)
        while sent < size:
            peer.send(chunk(bytes(1 << 16)))
            sent += 1 << 16
            await peer.writer.drain()
        peer.send(chunk(b""))
        await peer.left()

    take = Taker(most=1)
    async with upstream(play) as server:
        answer = await fast.send(Endpoint(server.url), timeouts=LONG)
        assert await answer.relay(take) is True
        before = -1
        while sent > before:
            before = sent
            for _ in range(50):
                await asyncio.sleep(0)
        assert sent < size // 2  # the kernel's buffers, and a quarter of a megabyte here
        while await answer.relay(take):
            take.most = len(take.got) + 3
    assert sum(map(len, take.got)) == size
    assert max(map(len, take.got)) < 1 << 20
