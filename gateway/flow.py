"""Waiting for a caller, lighter than uvicorn's: an `asyncio.Event` has a queue of 700 bytes, and each connection has two."""

import asyncio

LINGER_S = 5.0


class Signal:
    """An event that one task waits for at a time."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> None:
        """Until it is set, or was set meanwhile."""
        if self._is_set:
            return
        assert self._waiter is None, "one waits at a time"
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Flow:
    """What uvicorn's FlowControl does: whether a connection is read, and whether the caller has room for more."""

    __slots__ = ("_lingers", "_transport", "_writable", "lingering", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable = Signal()
        self._lingers: asyncio.TimerHandle | None = None
        self.lingering = False
        self.read_paused = False
        self.write_paused = False

    async def drain(self) -> None:
        """Until the caller has room."""
        if self.write_paused:
            await self._writable.wait()

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._writable.set()

    def linger(self) -> None:
        """Say no more, and close when the caller has, or a while later; what still comes is to be passed over.

        With bytes unread a close is a reset, which takes the answer from a caller who has not read it yet (RFC 9112 9.6).
        """
        if self._transport.is_closing() or not self._transport.can_write_eof():
            self._transport.close()
            return
        self.lingering = True
        self._lingers = asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)
        self._transport.write_eof()
        self.resume_reading()

    def lost(self) -> None:
        """The connection is gone; who waits for room need not."""
        if self._lingers is not None:
            self._lingers.cancel()
        self.resume_writing()
