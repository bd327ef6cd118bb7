"""A TCP proxy that breaks things: for what lies between the gateway and Redis, and between the worker and MongoDB."""

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

_CHUNK = 65536


@dataclass(frozen=True)
class Faults:
    """How probable each fault is, per chunk of bytes that passes.

    drop: a reply is lost with its connection · reset: a request is · cut: a frame ends in the middle, and so does the
    connection · delay: it comes later · hole: nothing passes any more, and nobody is told.
    """

    drop: float = 0.0
    reset: float = 0.0
    cut: float = 0.0
    delay: float = 0.0
    hole: float = 0.0
    delay_s: float = 0.05


NONE = Faults()


class _Broken(Exception):
    """This connection has had its fault."""


class FaultProxy:
    """Listens on loopback and passes bytes to `target`, most of the time.

    `sever` cuts every connection and lets none through until `heal`; `watch` sees each chunk of a client, and what
    it answers True to is lost with its connection. `broke` is called when a connection gets a fault that a caller notices.
    """

    def __init__(self, target: int, seed: random.Random, faults: Faults = NONE) -> None:
        self.target = target
        self.faults = faults
        self.injected: Counter[str] = Counter()
        self.broke: Callable[[], None] = lambda: None
        self.watch: Callable[[bytes], bool] = lambda _chunk: False
        self._random = seed
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._severed = False
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def sever(self) -> None:
        self._severed = True
        self.reset_all()

    def heal(self) -> None:
        self._severed = False

    def reset_all(self) -> None:
        for writer in tuple(self._open):
            _abort(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            if not self._severed:
                far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
                self._open.add(far)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass(reader, far, replies=False))
                    both.create_task(self._pass(far_reader, writer, replies=True))
        except* (OSError, RuntimeError, _Broken):  # a RuntimeError: uvloop, when it writes to what is closed
            pass
        finally:
            for end in (writer, far):
                if end is not None:
                    self._open.discard(end)
                    _abort(end)
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        while chunk := await reader.read(_CHUNK):
            if not replies and self.watch(chunk):
                raise _Broken
            await self._harm(chunk, reader, writer, replies=replies)
            writer.write(chunk)
            await writer.drain()
        raise _Broken  # one side has ended: so does the other

    async def _harm(
        self, chunk: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        fault = self._choose(replies=replies)
        if fault is None:
            return
        self.injected[fault] += 1
        if fault == "delay":
            await asyncio.sleep(self._random.uniform(0, self.faults.delay_s))
            return
        self.broke()
        if fault == "cut":
            writer.write(chunk[: self._random.randrange(len(chunk))])
            with contextlib.suppress(OSError):
                await writer.drain()
                await asyncio.sleep(0.002)  # the half frame gets there before the reset does
        while fault == "hole" and await reader.read(_CHUNK):
            pass  # until somebody gives up and closes
        raise _Broken

    def _choose(self, *, replies: bool) -> str | None:
        faults, roll = self.faults, self._random.random()
        odds = {
            "drop": faults.drop if replies else 0.0,
            "reset": 0.0 if replies else faults.reset,
            "cut": faults.cut,
            "delay": faults.delay,
            "hole": faults.hole,
        }
        for name, odd in odds.items():
            if roll < odd:
                return name
            roll -= odd
        return None

    @property
    def broken(self) -> int:
        """How many connections had a fault that a caller notices."""
        return sum(count for name, count in self.injected.items() if name != "delay")


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, as a broken network does."""
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
