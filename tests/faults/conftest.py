"""The fault suite: what each run reached is printed at the end, and a run that reached less than asked has failed."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.faults import options
from tests.faults.options import Tally
from tests.faults.servers import KINDS, Kind

_FULL_S = 3600
_failed = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The full form takes as long as it takes, but not for ever."""
    here = Path(__file__).parent
    for item in items:
        if options.FORM == "full" and here in item.path.parents:
            item.add_marker(pytest.mark.timeout(_FULL_S))


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of production: it fails in ways of its own when connections break."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.when == "call":
        item.stash[_failed] = report.failed
    return report


@pytest.fixture
def tally(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """What this test counts."""
    given = os.environ.get("WEIR_FAULTS_RESULTS")
    folder = Path(given) if given else tmp_path_factory.getbasetemp() / "faults"
    tally = Tally(request.node.name.removeprefix("test_"))
    yield tally
    passed = tally.checked and not request.node.stash.get(_failed, True)
    request.node.user_properties.append((options.PROPERTY, tally.write(folder, passed=passed)))
    assert tally.checked or not passed, "the test never checked its counts"


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every server the books are promised on."""
    return KINDS[request.param]()


@pytest.fixture(params=list(KINDS) if options.FORM == "full" else ["valkey"])
def main_kind(request: pytest.FixtureRequest) -> Kind:
    """Every server in the full form, Valkey in the short one."""
    return KINDS[request.param]()


@pytest.fixture
def valkey_kind() -> Kind:
    return KINDS["valkey"]()
