"""Ten thousand requests in a storm: every answer that is read is the answer to what was asked, and all is given back."""

import asyncio
import random
from collections import Counter

import httpx2

from gateway.upstream.transport import Endpoint, FastTransport, Timeouts
from tests.integration.upstream.peers import Peer, bare, upstream

REQUESTS = 10_000
AT_ONCE = 48
CONNECTIONS = 32
TIMEOUTS = Timeouts(5, 0.3, 5, 30)
FOREIGN = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nFOREIGN"
GOOD = ("length", "chunked", "close", "early", "behind", "second", "then closed", "slow")
BAD = ("cut", "reset", "short chunk", "silent", "stalled", "refused", "two lengths")


def framed(kind: str, content: bytes) -> bytes:
    if kind in ("chunked", "short chunk"):
        half = len(content) // 2
        parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (content[:half], content[half:])]
        return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n"
    if kind == "close":
        return b"HTTP/1.1 200 OK\r\n\r\n" + content
    length = b"content-length: 0\r\n" if kind == "two lengths" else b""
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (length, len(content), content)


async def play(peer: Peer) -> None:
    """The request says what is to be done to it; its answer is itself, many times over."""
    while body := (await peer.request())[1]:
        kind = body.split(b" ")[1].decode()
        kind = kind.replace("_", " ")
        wire = framed(kind, body)
        if kind in ("cut", "short chunk"):
            peer.send(wire[:-20])
        elif kind == "reset":
            peer.send(wire[:-20])
            await peer.writer.drain()
            peer.rst()
        elif kind in ("silent", "stalled"):
            peer.send(wire[: 0 if kind == "silent" else -20])
            await peer.left()
        elif kind == "slow":
            for start in range(0, len(wire), 200):
                peer.send(wire[start : start + 200])
                await asyncio.sleep(0)
        elif kind != "refused":
            early = b"HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" if kind == "early" else b""
            behind = {"behind": b"garbage", "second": FOREIGN}.get(kind, b"")
            peer.send(early + wire + behind)
        if kind in ("cut", "short chunk", "refused", "close", "then closed"):
            await peer.writer.drain()
            return


class Storm:
    def __init__(self, fast: FastTransport, endpoint: Endpoint, seed: int) -> None:
        self.random = random.Random(seed)
        self.ends: Counter[str] = Counter()
        self._fast = fast
        self._endpoint = endpoint

    async def one(self, number: int, kind: str) -> None:
        body = b"%d %b " % (number, kind.replace(" ", "_").encode()) + b"%d," % number * self.random.randint(20, 400)
        read, failure = None, None
        try:
            async with asyncio.timeout(60):
                response = await self._fast.send(self._endpoint, body=body, timeouts=TIMEOUTS)
                read = b""
                async for chunk in response:
                    read += chunk
                    assert body.startswith(read), (number, kind)
                    if self.random.random() < 0.01:
                        await response.aclose()
                        self.ends["closed"] += 1
                        return
        except httpx2.TransportError as error:
            failure = error
        if failure is not None:
            self.ends[type(failure).__name__] += 1
            # A good one may be slow on a busy machine, or meet a connection that the server is just closing.
            assert kind in BAD or read is None or isinstance(failure, httpx2.ReadTimeout), (number, kind, failure)
            return
        assert read == body, (number, kind)
        assert kind in GOOD, (number, kind)
        self.ends["answered"] += 1

    async def caller(self, numbers: "asyncio.Queue[int]") -> None:
        loop = asyncio.get_running_loop()
        while not numbers.empty():
            number = numbers.get_nowait()
            bad = self.random.random() < 0.15
            task = loop.create_task(self.one(number, self.random.choice(BAD if bad else GOOD)))
            if self.random.random() < 0.1:
                await turns(self.random.randint(0, 12))
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                self.ends["cancelled"] += 1


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_no_answer_goes_astray_and_no_connection_is_lost() -> None:
    seed = random.randrange(1 << 32)
    numbers: asyncio.Queue[int] = asyncio.Queue()
    for number in range(REQUESTS):
        numbers.put_nowait(number)
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    before = len(asyncio.all_tasks())
    fast = FastTransport(bare(), max_connections=CONNECTIONS, keepalive_s=0.05)
    async with fast, upstream(play) as server:
        storm = Storm(fast, Endpoint(server.url), seed)
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(storm.caller(numbers))
        assert sum(storm.ends.values()) == REQUESTS, (seed, storm.ends)
        assert storm.ends["answered"] > REQUESTS * 0.6, (seed, storm.ends)
        assert min(storm.ends[end] for end in ("answered", "cancelled", "closed", "ReadError", "ReadTimeout")) > 0
        assert (fast.counts["busy"], fast.counts["waiting"]) == (0, 0), (seed, fast.counts)
        await server.until(lambda: server.open <= fast.counts["idle"])
        await server.until(lambda: not server.open)  # and the idle ones expire
        assert fast.counts == {"busy": 0, "idle": 0, "waiting": 0, "open": 0}, (seed, fast.counts)
    assert len(asyncio.all_tasks()) == before, seed
    assert complaints == [], seed
