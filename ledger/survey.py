"""Questions that go to every partition, a share at a time: callers wait for the same Redis, and not for all 256 of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ledger import keyspace

_SHARE = 32
T = TypeVar("T")


def shares(among: Sequence[str] = keyspace.PARTITIONS) -> list[Sequence[str]]:
    """Partitions, so many as are asked at once."""
    return [among[start : start + _SHARE] for start in range(0, len(among), _SHARE)]


async def survey(ask: Callable[[str], Awaitable[T]], among: Sequence[str] = keyspace.PARTITIONS) -> dict[str, T]:
    """The answers by partition, in their order."""
    found: dict[str, T] = {}
    for share in shares(among):
        found |= zip(share, await asyncio.gather(*map(ask, share)), strict=True)
    return found
