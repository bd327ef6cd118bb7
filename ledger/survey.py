"""Questions that go to every partition, a share at a time: callers wait for the same Redis, and not for all 256 of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ledger import keyspace

T = TypeVar("T")
SHARES = tuple(keyspace.PARTITIONS[first::8] for first in range(8))


async def survey(ask: Callable[[str], Awaitable[T]], among: Sequence[str] = keyspace.PARTITIONS) -> dict[str, T]:
    """The answers by partition, in their order."""
    found: dict[str, T] = {}
    size = len(SHARES[0])
    for start in range(0, len(among), size):
        share = among[start : start + size]
        found |= zip(share, await asyncio.gather(*map(ask, share)), strict=True)
    return found
