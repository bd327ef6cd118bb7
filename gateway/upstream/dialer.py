"""A session's way to an upstream: one of the pool that opens a connection and, where it has a time for that, speaks in it.

As with requests, a failure moves on to the next one before the first message, and never after it. An upstream without
`first_byte_timeout_s` may be silent for as long as it likes: its first message goes to the caller when it comes.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gateway import metrics
from gateway.dialects.shape import Dialect
from gateway.headers import Headers
from gateway.refusals import Code, Refusal, unavailable
from gateway.upstream import attempts, quota
from gateway.upstream.choice import Want, choose, spot_of
from gateway.upstream.client import Chosen
from gateway.upstream.pools import Pools
from gateway.upstream.socket import NotSwitched, open_socket
from ledger import tally

Hello = Callable[[Chosen, ClientConnection], Awaitable[None]]
_CLOSE_WITHIN_S = 2.0


class Line(NamedTuple):
    """A connection to an upstream, and its first message if it was waited for."""

    chosen: Chosen
    socket: ClientConnection
    first: str | bytes | None


class Dialer:
    """For one session. After `dial` it has a place at the upstream, until `leave`."""

    def __init__(
        self, pools: Pools, context: ssl.SSLContext, dialect: Dialect, headers: Headers, *, public_only: bool
    ) -> None:
        self._pools = pools
        self._context = context
        self._dialect = dialect
        self._headers = headers
        self._public_only = public_only
        self._at: Chosen | None = None

    async def dial(self, able: Sequence[Chosen], want: Want, path: Callable[[Chosen], str], hello: Hello) -> Line:
        """A connection on which `hello` was said; the last Refusal if nobody takes it."""
        tried: list[Chosen] = []
        until = time.monotonic() + attempts.SEARCH_WITHIN_S
        self._pools.budget.earn()
        while True:
            chosen = choose([able], self._pools.health, tried, want)
            if tried:
                tally.count(metrics.FAILOVERS, chosen.upstream.name)
            tried.append(chosen)
            self._pools.take(chosen)
            self._at = chosen
            try:
                return await self._try(chosen, path(chosen), hello)
            except Refusal as refusal:
                self.leave()
                more = len(tried) < len(able) and time.monotonic() < until
                if not self._is_failure(chosen, refusal) or not more or not self._pools.budget.spend():
                    raise
            except BaseException:
                self.leave()
                raise

    def leave(self) -> None:
        """The session is over there."""
        if self._at is not None:
            left, self._at = self._at, None
            self._pools.leave(left)

    async def _try(self, chosen: Chosen, path: str, hello: Hello) -> Line:
        within_s = chosen.upstream.first_byte_timeout_s
        began, socket = time.monotonic(), None
        try:
            async with asyncio.timeout(within_s):
                socket = await open_socket(
                    self._context, chosen, self._dialect, path, self._headers, public_only=self._public_only
                )
                await hello(chosen, socket)
                first = None if within_s is None else await socket.recv()
        except TimeoutError:
            await _close(socket)
            self._pools.upstreams.failed(chosen.upstream.name, "timeout")
            raise unavailable("The upstream did not answer in time; please try again.") from None
        except ConnectionClosed as error:
            self._pools.upstreams.failed(chosen.upstream.name, "broke", error)
            message = "The upstream broke off before it answered; please try again."
            raise Refusal(Code.UPSTREAM_ERROR, message, retry_after_s=1) from None
        except asyncio.CancelledError:
            await _close(socket)
            raise
        self._pools.health.answered(spot_of(chosen), time.monotonic() - began)
        return Line(chosen, socket, first)

    def _is_failure(self, chosen: Chosen, refusal: Refusal) -> bool:
        """Note what it says of an upstream; whether another should be asked."""
        health, spot = self._pools.health, spot_of(chosen)
        if not isinstance(refusal, NotSwitched) or refusal.status in attempts.BROKEN:
            health.failed(spot)
        elif refusal.status == attempts.TOO_MANY:
            health.cool(spot, quota.retry_after_s(refusal.headers, time.time()))
        elif refusal.status in attempts.REFUSED:
            tally.count(metrics.CREDENTIAL_REFUSED, chosen.upstream.name)
            health.refuse(chosen.upstream.id, chosen.credential)
        else:
            return False
        return True


async def _close(socket: ClientConnection | None) -> None:
    if socket is not None:
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            await asyncio.wait_for(socket.close(), _CLOSE_WITHIN_S)
