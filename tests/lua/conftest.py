"""One Valkey for all script tests, emptied before each."""

from collections.abc import AsyncIterator, Iterator

import pytest

from ledger.link import Link
from tests.conftest import valkey
from tests.lua.books import Books


@pytest.fixture(scope="session")
def shared_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with valkey(tmp_path_factory.mktemp("lua"), "--appendonly", "no") as server:
        yield server.url


@pytest.fixture
async def bare(shared_url: str) -> AsyncIterator[Books]:
    """An empty server."""
    async with Link(shared_url) as link:
        await link.command("CONFIG", "SET", "maxmemory", "0")
        await link.command("FLUSHALL")
        yield Books(link)


@pytest.fixture
async def books(bare: Books) -> Books:
    """An open partition; the account has $10 and its key no limits."""
    await bare.ready()
    return bare
