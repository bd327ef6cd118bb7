"""Drives a provider that runs in another process, by the names that the one in this process has."""

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import httpx2
import msgspec

from bench.provider import control
from bench.provider.record import Bill, Seen, Stats
from bench.provider.script import Behaviour


class ProviderControl:
    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx2.AsyncClient(base_url=url, timeout=control.LONGEST_WAIT_S + 5, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def script(self, behaviour: Behaviour, *, model: str | None = None, credential: str | None = None) -> None:
        await self._call("PUT", "script", control.Rule(behaviour, model, credential))

    async def queue(self, *behaviours: Behaviour) -> None:
        await self._call("POST", "queue", control.Queue(list(behaviours)))

    async def release(self, count: int | None = None) -> int:
        answer = await self._call("POST", "release", control.Release(count))
        return msgspec.json.decode(answer, type=control.Released).released

    async def accept(self, credentials: Iterable[str] | None) -> None:
        accepted = None if credentials is None else frozenset(credentials)
        await self._call("PUT", "credentials", control.Credentials(accepted))

    async def seen(self) -> list[Seen]:
        return msgspec.json.decode(await self._call("GET", "seen"), type=list[Seen])

    async def bills(self) -> list[Bill]:
        return msgspec.json.decode(await self._call("GET", "bills"), type=list[Bill])

    async def stats(self) -> Stats:
        return msgspec.json.decode(await self._call("GET", "stats"), type=Stats)

    async def reset(self) -> None:
        await self._call("POST", "reset")

    async def wait_for(self, predicate: Callable[[Stats], bool], *, timeout_s: float = 5.0) -> Stats:
        """Until the predicate holds; the provider answers when something has happened, not before."""
        stats = await self.stats()
        try:
            async with asyncio.timeout(timeout_s):
                while not predicate(stats):
                    answer = await self._call("GET", f"stats?after={stats.change}&wait_s={timeout_s}")
                    stats = msgspec.json.decode(answer, type=Stats)
        except TimeoutError:
            raise TimeoutError(f"not within {timeout_s} s: {stats}") from None
        return stats

    async def _call(self, method: str, name: str, value: Any = None) -> bytes:
        content = b"" if value is None else msgspec.json.encode(value)
        response = await self._client.request(method, control.PREFIX + name, content=content)
        if response.status_code != 200:
            raise ValueError(f"{method} {name}: {response.text}")
        return response.content
