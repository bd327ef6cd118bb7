"""The scripted provider, in the process of the test that drives it."""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from bench.provider.house import House
from bench.provider.record import Bill, Seen, Stats
from bench.provider.script import Behaviour
from bench.provider.server import Connection


class ScriptedProvider:
    """A provider of every dialect that does what it is told, and knows afterwards what it did.

    `async with ScriptedProvider() as p`, then `p.url`, and a base path of any kind behind it.
    """

    def __init__(
        self,
        default: Behaviour | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        accepted_credentials: Iterable[str] | None = None,
        record_bodies: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        accepted = None if accepted_credentials is None else frozenset(accepted_credentials)
        self._house = House(default or Behaviour(), accepted, record_bodies=record_bodies)
        self._address = host, port
        self._tls = tls
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        host, port = self._address
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._house), host, port, ssl=self._tls, backlog=4096
        )
        self._address = host, self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cuts what is still open. A second `start` takes the same port."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        self._house.close()
        await self._house.record.wait_until(lambda: not self._house.connections)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._address[0]}:{self._address[1]}"

    def script(self, behaviour: Behaviour, *, model: str | None = None, credential: str | None = None) -> None:
        """For requests of this model, of this credential, or all; with `times`, on top of what held."""
        self._house.script.rule(behaviour, model=model, credential=credential)

    def queue(self, *behaviours: Behaviour) -> None:
        """For the next requests, whatever they are: one each, or as many as `times` says."""
        self._house.script.queue(behaviours)

    def release(self, count: int | None = None) -> int:
        """Lets those that wait (all, or the first few) go on; answers how many did."""
        return self._house.release(count)

    def accept(self, credentials: Iterable[str] | None) -> None:
        """From now on only these; None: any."""
        self._house.accepted_credentials = None if credentials is None else frozenset(credentials)

    def reset(self) -> None:
        """Cuts what is in flight, and forgets every rule and record."""
        self._house.reset()

    @property
    def seen(self) -> list[Seen]:
        return list(self._house.record.seen)

    @property
    def bills(self) -> list[Bill]:
        return list(self._house.record.bills)

    @property
    def stats(self) -> Stats:
        """Live: look again and the numbers have moved."""
        return self._house.record.stats

    async def wait_for(self, predicate: Callable[[Self], bool], *, timeout_s: float = 5.0) -> None:
        """Until the predicate holds, looked at whenever something happens here."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._house.record.wait_until(lambda: predicate(self))
        except TimeoutError:
            raise TimeoutError(f"not within {timeout_s} s: {self.stats}") from None
