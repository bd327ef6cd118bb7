"""What costs seconds is done once: every SDK runs for the whole session, before one provider and one Weir.

So all tests here share one event loop, in which the two providers are.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bench.provider import ScriptedProvider
from tests.clients.driver import Driver
from tests.clients.sdks import SDKS
from tests.clients.sides import Site
from tests.stack import Stack

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Every SDK, all started side by side; a provider that they ask directly, and one that is behind Weir."""
    drivers = {sdk: Driver(sdk, tmp_path_factory.mktemp(str(sdk))) for sdk in SDKS}
    async with ScriptedProvider(record_bodies=True) as direct, ScriptedProvider(record_bodies=True) as behind:
        yield Site(stack, drivers, direct, behind)
    for driver in drivers.values():
        driver.stop()
