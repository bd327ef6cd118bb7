"""One connection to Redis in use: calls go out in the order in which their answers come back.

redis-py connects, speaks TLS, authenticates and finds its way through Sentinel; then its streams are put aside, and this
protocol has the transport. An answer goes from the socket to its caller without a task in between (docs/performance.md).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError

from ledger.call import Call

_MORE: Final = object()


class Conversation(asyncio.Protocol):
    """`lost` is done, with the reason, when the connection cannot be used any more; what was `sent` has no answer then.

    `again` is given the calls whose script the server did not know.
    """

    def __init__(self, connection: AbstractConnection, again: Callable[[Call], None]) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.sent: deque[Call] = deque()
        self.heard_at = loop.time()
        self.pack_slowly = connection.pack_command
        self._again = again
        self._clock = loop.time
        self._answers = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=connection._parser.parse_error,  # noqa: SLF001 - its names of errors are those that callers know
            notEnoughData=_MORE,
        )
        writer = connection._writer  # noqa: SLF001 - there is no public way to its transport
        assert writer is not None
        self._transport = writer.transport
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            self._fail(ConnectionResetError())

    def send(self, calls: list[Call], packed: list[bytes]) -> None:
        """Never raises: what cannot be written is lost like what is not answered."""
        if not self.sent:
            self.heard_at = self._clock()
        self.sent.extend(calls)
        try:
            self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))
        except Exception as error:  # noqa: BLE001 - uvloop, for one, has a RuntimeError for a closed transport
            self._fail(error)

    def end(self) -> list[Call]:
        """It is used no more: the calls that have no answer."""
        self.lost.cancel()
        left = list(self.sent)
        self.sent.clear()
        return left

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._clock()
        answers, sent = self._answers, self.sent
        try:
            answers.feed(data)
            while (answer := answers.gets()) is not _MORE:
                if isinstance(answer, RedisError):
                    self._refused(answer)
                elif not isinstance(answer, hiredis.PushNotification):
                    future = sent.popleft().future
                    if not future.done():
                        future.set_result(answer)
        except Exception as error:  # noqa: BLE001 - an answer that nobody asked for, or that is none
            self._fail(error)

    def _refused(self, error: RedisError) -> None:
        if isinstance(error, RedisConnectionError):  # LOADING, for one: this server is of no use now
            raise error
        call = self.sent.popleft()
        if isinstance(error, NoScriptError) and call.script is not None:
            # Nothing ran, so this one entry, and only this one, goes again with its text.
            self._again(Call(None, ("EVAL", call.script.text, *call.args), call.future))
        else:
            call.fail(error if isinstance(error, ResponseError) else ResponseError(str(error)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError())

    def _fail(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_exception(error)
        self._transport.abort()
