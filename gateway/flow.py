"""Waiting for a caller, lighter than uvicorn's: an `asyncio.Event` has a queue of 700 bytes, and each connection has two."""

import asyncio


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

    __slots__ = ("_transport", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable = Signal()
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
