"""Moments in the life of a pool that no upstream brings about at will."""

import asyncio
import socket
import ssl

import httpx2
import pytest

from gateway.upstream.connection import Connection, Exchange
from gateway.upstream.making import Settings, Stats
from gateway.upstream.pool import Pool, Timeouts
from gateway.upstream.wire import Origin

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Clogged(asyncio.Transport):
    """A transport that still holds bytes of the request."""

    def __init__(self, held: int) -> None:
        self.ours, self.theirs = socket.socketpair()
        super().__init__({"socket": self.ours})
        self.held = held
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.held

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True
        self.ours.close()
        self.theirs.close()


def by_hand(transport: Clogged) -> tuple[Pool, Connection]:
    """A pool with room for one connection, which is there and busy."""
    pool = Pool(
        Origin("http", "a", 80), Settings(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), 1, 60.0, 60.0, None, None), Stats()
    )
    connection = Connection(pool, asyncio.get_running_loop())
    connection.connection_made(transport)
    connection.idle_limit = connection.retires = connection.expires = float("inf")
    connection.owns_slot = True
    pool._slots = 1
    pool._open.add(connection)
    return pool, connection


@pytest.mark.parametrize("held", [0, 1])
async def test_an_answer_that_came_before_the_request_was_out(held: int) -> None:
    pool, connection = by_hand(transport := Clogged(held))
    connection.begin(exchange := Exchange(head_request=False, max_body_bytes=99))
    exchange.sent = True
    connection.data_received(OK)
    assert exchange.complete
    assert transport.aborted == (held > 0)
    connection.abort()
    pool.close()
    assert pool.counts == {"busy": 0, "idle": 0, "waiting": 0, "open": 0}


@pytest.mark.parametrize("dies", [False, True])
async def test_a_caller_that_leaves_with_a_connection_in_its_hands(dies: bool) -> None:
    """Given to it, and cancelled in the same turn; the connection, or its slot, goes back."""
    pool, connection = by_hand(Clogged(0))
    caller = asyncio.create_task(pool.acquire(Timeouts()))
    await asyncio.sleep(0)
    assert pool.counts["waiting"] == 1
    pool.give_back(connection)
    if dies:
        connection.abort()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert pool.counts == {"busy": 0, "idle": int(not dies), "waiting": 0, "open": int(not dies)}
    pool.close()
    assert pool.counts == {"busy": 0, "idle": 0, "waiting": 0, "open": 0}


async def test_a_caller_waits_for_its_turn_no_longer_than_it_may() -> None:
    """And what comes free afterwards is not given to it."""
    pool, connection = by_hand(Clogged(0))
    async with asyncio.timeout(5):
        with pytest.raises(httpx2.PoolTimeout, match="in time"):
            await pool.acquire(Timeouts(pool=0.001))
    assert pool.counts == {"busy": 1, "idle": 0, "waiting": 0, "open": 1}
    pool.give_back(connection)
    assert pool.counts == {"busy": 0, "idle": 1, "waiting": 0, "open": 1}
    pool.close()
