"""The line to Redis: whose answer is whose, whatever is cancelled, killed, silent or forgotten."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from ledger import hot
from ledger.hot import Fenced
from ledger.link import Link, Script, StoreUnavailable
from tests.conftest import running, valkey
from tests.stack import eventually
from weir.bundled import Valkey, free_port

META = "w1:{p5a}:meta"


class Proxy:
    """Between a Link and its server: counts what arrives in one piece, and swallows the answers when told to."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.silent = False
        self.port = 0
        self.connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._pump(reader, up_writer, self.chunks.append), self._pump(up_reader, writer, None))
        for each in (writer, up_writer):
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], None] | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 20):
                if note:
                    note(data)
                elif self.silent:
                    continue
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    proxy, port = Proxy(), int(url.rpartition(":")[2])
    server = await asyncio.start_server(lambda r, w: proxy.serve(r, w, port), "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for connection in proxy.connections:
            connection.cancel()
        await asyncio.gather(*proxy.connections, return_exceptions=True)


async def answer(link: Link) -> Any:
    """PING, again after an error, until the link is up."""
    for _ in range(400):
        with contextlib.suppress(StoreUnavailable):
            return await link.command("PING")
        await asyncio.sleep(0)
    raise AssertionError("the link did not come back")


async def test_the_calls_of_one_tick_leave_together(redis_url: str) -> None:
    async with proxied(redis_url) as proxy, Link(proxy.url) as link:
        await link.command("PING")
        proxy.chunks.clear()
        answers = await asyncio.gather(*(link.command("ECHO", f"word {number}") for number in range(50)))
        assert answers == [f"word {number}".encode() for number in range(50)]
        assert len(proxy.chunks) == 1
        assert proxy.chunks[0].count(b"ECHO") == 50


async def test_a_cancelled_caller_disturbs_nobody(redis: Link) -> None:
    await redis.command("PING")
    calls = [redis.command("ECHO", number) for number in range(30)]
    for call in calls[::3]:
        call.cancel()
    for number, call in enumerate(calls):
        if number % 3:
            assert await call == str(number).encode()
    assert not await redis.command("EXISTS", "nothing")


async def test_a_caller_that_was_cancelled_before_the_write_is_not_sent(redis_url: str) -> None:
    async with proxied(redis_url) as proxy, Link(proxy.url) as link:
        await link.command("PING")
        link.command("ECHO", "cancelled").cancel()
        assert await link.command("ECHO", "kept") == b"kept"
        assert not any(b"cancelled" in chunk for chunk in proxy.chunks)


async def test_no_answer_goes_to_the_wrong_caller(redis_url: str) -> None:
    """10,000 calls, a third of them cancelled at any moment; errors and forgotten scripts among them."""
    chance = random.Random(7391)
    echo, served = Script("grant"), 0
    echo.text, echo.sha = b"#!lua\nreturn ARGV[1]", b"0" * 40  # a SHA that no server knows: always NOSCRIPT, then EVAL

    async def caller(link: Link, number: int) -> None:
        nonlocal served
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        kind = chance.randrange(10)
        word = str(number).encode()
        if kind == 0:
            with pytest.raises(ResponseError, match=r"WRONGTYPE|hash value"):
                await link.command("HGET", "text", word)
        elif kind == 1:
            assert await link.run(echo, (), (word,)) == word
        else:
            assert await link.command("ECHO", word) == word
        served += 1

    async with Link(redis_url) as link:
        await link.command("SET", "text", "text")
        for batch in range(20):
            tasks = [asyncio.create_task(caller(link, batch * 500 + number)) for number in range(500)]
            for task in chance.sample(tasks, 170):
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError)
    assert served > 6000


async def test_a_server_killed_in_mid_batch_fails_everyone_and_later_calls_work(tmp_path: Path) -> None:
    port = free_port()
    async with Link(f"redis://127.0.0.1:{port}", deadline_s=5) as link:
        server = Valkey(tmp_path, port)
        with running(server.command()) as process:
            await answer(link)
            blocked = link.command("BLPOP", "nothing", 0)
            others = [link.command("INCR", "count") for _ in range(20)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            process.kill()
            results = await asyncio.gather(blocked, *others, return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) for result in results)
        with pytest.raises(StoreUnavailable):
            await link.command("PING")
        with valkey(tmp_path, port=port):
            assert await eventually(lambda: answer(link), lambda reply: reply == b"PONG")
            assert await link.command("GET", "count") is None  # nothing was sent a second time


async def test_noscript_is_transparent(redis: Link) -> None:
    for _ in range(3):
        replies = await asyncio.gather(
            *(hot.grant(redis, "5a", "a", number=1, credited_nanos=1) for _ in range(20)), return_exceptions=True
        )
        assert all(isinstance(reply, Fenced) for reply in replies)
        await redis.command("SCRIPT", "FLUSH")
    assert await redis.command("DBSIZE") == 0


async def test_an_error_is_its_callers_alone(redis: Link) -> None:
    await redis.command("SET", "text", "text")
    bad, good = redis.command("HGET", "text", "x"), redis.command("GET", "text")
    with pytest.raises(ResponseError):
        await bad
    assert await good == b"text"


@pytest.mark.parametrize("bad", [None, [1], "\udc80"], ids=["none", "list", "surrogate"])
async def test_a_word_that_cannot_be_sent_fails_its_caller_alone(redis: Link, bad: Any) -> None:
    good = redis.command("ECHO", "one")
    broken = redis.command("ECHO", bad)
    other = redis.command("ECHO", "two")
    async with asyncio.timeout(5):
        with pytest.raises(Exception, match=r"Invalid input|surrogates") as caught:
            await broken
        assert not isinstance(caught.value, StoreUnavailable)
        assert (await good, await other) == (b"one", b"two")
        assert await redis.command("PING") == b"PONG"


async def test_a_silent_server_hits_the_deadline(redis_url: str) -> None:
    async with proxied(redis_url) as proxy, Link(proxy.url, deadline_s=0.2) as link:
        await link.command("PING")
        proxy.silent = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        results = await asyncio.gather(*(link.command("PING") for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) for result in results)
        assert 0.2 <= loop.time() - began < 1.5
        began = loop.time()
        with pytest.raises(StoreUnavailable):  # now not even the connecting is answered
            await link.command("PING")
        assert loop.time() - began < 2
        proxy.silent = False
        assert await eventually(lambda: answer(link), lambda reply: reply == b"PONG")


async def test_a_paused_server_hits_the_deadline(redis: Link, redis_url: str) -> None:
    async with Link(redis_url, deadline_s=0.2) as link:
        await link.command("PING")
        await redis.command("CLIENT", "PAUSE", 600, "ALL")
        with pytest.raises(StoreUnavailable):
            await link.command("GET", "x")
        assert await eventually(lambda: answer(link), lambda reply: reply == b"PONG")


async def test_nobody_is_left_waiting_when_the_link_closes(redis_url: str) -> None:
    async with Link(redis_url) as link:
        await link.command("PING")
        waiting = link.command("BLPOP", "nothing", 0)
        unsent = link.command("PING")
    for call in (waiting, unsent):
        with pytest.raises(StoreUnavailable):
            await call
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable):
            await link.command("PING")


async def test_a_transaction_comes_whole_or_not_at_all_also_when_its_caller_goes(redis: Link) -> None:
    await redis.command("PING")
    gone = redis.transaction("n", ("INCR", "n"), ("INCR", "n"))
    gone.cancel()
    assert await redis.command("PING") == b"PONG"
    assert int(await redis.command("GET", "n") or 0) in (0, 2)


async def test_calls_between_a_transactions_parts_stay_outside(redis: Link) -> None:
    first, ping, second = (
        redis.transaction("n", ("INCR", "n")),
        redis.command("PING"),
        redis.transaction("n", ("INCR", "n")),
    )
    assert (await first, await ping, await second) == ([1], b"PONG", [2])
