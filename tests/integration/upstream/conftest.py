"""Each test on both event loops: uvloop is what the gateway runs on, asyncio what its users may."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from gateway.upstream.transport import FastTransport
from tests.integration.upstream.peers import Authority, bare


@pytest.hookimpl
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def fast() -> AsyncIterator[FastTransport]:
    """With nothing left at its end but idle connections, and then none."""
    transport = FastTransport(bare())
    yield transport
    counts = transport.counts
    await transport.aclose()
    assert (counts["busy"], counts["waiting"]) == (0, 0)
    assert transport.counts == {"busy": 0, "idle": 0, "waiting": 0, "open": 0}
