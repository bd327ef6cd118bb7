"""The line to Redis: the calls of one event-loop tick leave in one write, on one connection that this module owns.

A command at a time costs a client 45 - 88 us, a batch 21 us or less (docs/performance.md). The rules of design.md section 5:
a caller that was cancelled is skipped and disturbs nobody; an error fails everyone whose answer is unknown; nothing is
ever sent again by the driver, because only the caller knows whether that is safe (every script is idempotent by its id).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, Self

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from ledger.call import Call, Script
from ledger.connections import close_pool, connection_pool, stay_connected
from ledger.conversation import Conversation

__all__ = ["Arg", "Caller", "Link", "Script", "StoreUnavailable"]

Arg = str | bytes | int


class StoreUnavailable(Exception):
    """Redis did not answer. Whether the call took effect is not known."""


class Caller(Protocol):
    """What can run scripts and commands: a Link to one server, or a ClusterLink to many."""

    def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Arg], *, patient: bool = False
    ) -> asyncio.Future[Any]: ...

    def command(self, *words: Arg, key: str | None = None) -> asyncio.Future[Any]: ...

    def transaction(self, key: str, *commands: tuple[Arg, ...]) -> asyncio.Future[Any]: ...

    def together(self, key: str, *commands: tuple[Arg, ...]) -> asyncio.Future[Any]: ...

    def server_of(self, key: str) -> object: ...


class Link:
    """One pipelined connection. `deadline_s` bounds how long any call may stay unanswered, connecting included."""

    def __init__(self, url: str, *, deadline_s: float = 2.0, name: str = "weir") -> None:
        self._pool = connection_pool(url, name=name)
        self._deadline_s = deadline_s
        self._waiting: deque[Call] = deque()
        self._conversation: Conversation | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving = self._lingering = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Connect, and stay connected until the block ends."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(
            stay_connected(self._pool, self, deadline_s=self._deadline_s), name="redis link"
        )
        self._task.add_done_callback(lambda _: self.failed("the link is closed"))

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self.failed("the link is closed")
        await close_pool(self._pool)

    def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Arg], *, patient: bool = False
    ) -> asyncio.Future[Any]:
        """Run a script; the future has its reply, or raises ResponseError or StoreUnavailable.

        `patient`: it leaves a turn of the loop later, or with what leaves before that; all calls keep their order.
        """
        return self._add(script, (len(keys), *keys, *args), patient=patient)

    def command(self, *words: Arg, key: str | None = None) -> asyncio.Future[Any]:
        """Any other command, for readers and loaders; the gateway's path uses none when its snapshots are fresh."""
        del key  # there is one server
        return self._add(None, words)

    def transaction(self, key: str, *commands: tuple[Arg, ...]) -> asyncio.Future[Any]:
        """MULTI ... EXEC; the future has EXEC's answer. They leave together, so nothing comes in between."""
        del key
        for words in (("MULTI",), *commands):
            self._add(None, words).add_done_callback(_ignore)
        # Shielded: MULTI without its EXEC would answer QUEUED to everybody after it.
        return asyncio.shield(self._add(None, ("EXEC",)))

    def together(self, key: str, *commands: tuple[Arg, ...]) -> asyncio.Future[Any]:
        """Commands in this order on one connection, nothing between them; the future has all their answers."""
        del key
        return asyncio.gather(*(self._add(None, words) for words in commands))

    def server_of(self, key: str) -> object:
        """Names the server that has this key, as far as is known: one name for all keys."""
        del key
        return self._pool

    def _add(self, script: Script | None, args: tuple[Any, ...], *, patient: bool = False) -> asyncio.Future[Any]:
        loop = self._loop
        if loop is None or self._task is None or self._task.done():
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(StoreUnavailable("the link is closed"))
            return failed
        future: asyncio.Future[Any] = loop.create_future()
        self._put(Call(script, args, future), patient=patient)
        return future

    def _put(self, call: Call, *, patient: bool = False) -> None:
        self._waiting.append(call)
        if self._leaving or self._conversation is None or self._loop is None:
            return
        if not patient:
            self._depart()
        elif not self._lingering:
            self._lingering = True
            self._loop.call_soon(self._depart)

    def _depart(self) -> None:
        self._lingering = False
        if self._waiting and not self._leaving and self._loop is not None:
            self._leaving = True
            self._loop.call_soon(self._leave)  # when everybody of this tick is on the same boat

    def enter(self, connection: AbstractConnection) -> Conversation:
        """A connection that can be used from now on; what waited leaves on it."""
        conversation = self._conversation = Conversation(connection, self._put)
        self._leave()
        return conversation

    def left(self, conversation: Conversation) -> None:
        """It cannot be used any more."""
        self._conversation = None
        self._waiting.extendleft(reversed(conversation.end()))

    def failed(self, why: str) -> None:
        """Whoever waits does so in vain."""
        error = StoreUnavailable(why)
        while self._waiting:
            self._waiting.popleft().fail(error)

    def _leave(self) -> None:
        """Send what waits."""
        self._leaving = False
        conversation = self._conversation
        if conversation is None:
            return
        calls, packed = self._pack(conversation)
        if calls:
            conversation.send(calls, packed)

    def _pack(self, conversation: Conversation) -> tuple[list[Call], list[bytes]]:
        """Take what waits: the calls to send, and their bytes. Words that cannot be sent fail their caller alone."""
        calls: list[Call] = []
        packed: list[bytes] = []
        waiting = self._waiting
        while waiting:
            call = waiting.popleft()
            if call.future.done():
                continue
            try:
                try:
                    packed.append(call.packed())
                except TypeError:  # a subclass, such as BSON's Int64, or nothing that can be sent
                    packed += conversation.pack_slowly(*call.words())
            except (RedisError, ValueError, TypeError) as error:
                call.fail(error)
                continue
            calls.append(call)
        return calls, packed


def _ignore(future: asyncio.Future[Any]) -> None:
    """EXEC's answer says what became of a transaction's parts."""
    if not future.cancelled():
        future.exception()
