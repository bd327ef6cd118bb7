"""The real servers that tests run on: one mongod for the session, a Valkey for each test (ready in under 0.1 s)."""

import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from pymongo import MongoClient
from redis import Redis
from redis.exceptions import RedisError
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]

from ledger import compiled, publish, reopen
from ledger.cold import ColdBook
from ledger.link import Link
from ledger.vault import Vault
from tests.faults import options
from tests.stack import Stack, running_stack
from weir.bundled import Mongod, Valkey, free_port, leashed

MASTER_KEY = bytes(range(32))
# The same cases each time, however slow the machine: a red build is a change's fault. HYPOTHESIS_PROFILE=new tries others,
# and so does `make fuzz`.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("new", settings.get_profile("same"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
_ROOT = Path(__file__).parent.parent
# They put stand-ins where classes belong, which compiled code does not take. tests/run.sh runs them on the source.
_WITH_STAND_INS = ["unit/test_counting.py", "unit/test_proxy.py", "unit/test_relay.py", "unit/test_search.py"]
collect_ignore = _WITH_STAND_INS if compiled.found else []
_TOGETHER = {
    "tests/faults/": "faults",
    "tests/clients/": "clients",
    "tests/integration/test_up.py": "up",
    "tests/integration/test_sentinel.py": "up",
}


def pytest_report_header() -> str:
    return f"request path: {f'{compiled.found} modules compiled' if compiled.found else 'interpreted'}"


class _Groups(LoadScopeScheduling):  # type: ignore[misc]
    """Who shares a test process: what kills and times processes runs one after the other, what shares a running Weir shares
    it, and a file stays together.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid.split("::", maxsplit=1)[0])


@cache
def _group(path: str) -> str:
    for start, name in _TOGETHER.items():
        if path.startswith(start):
            return name
    return "stack" if "stack: Stack" in (_ROOT / path).read_text() else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Pytest's own groups (`xdist_group`) are by a mark that this release of pytest does not hand on."""
    return _Groups(config, log)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What the fault runs reached."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    found = [
        v
        for r in reports
        if getattr(r, "when", "") == "teardown"
        for k, v in r.user_properties
        if k == options.PROPERTY
    ]
    if found:
        terminalreporter.section(f"faults, {options.FORM} form, seed {options.SEED}")
        for line in found:
            terminalreporter.write_line(line)


def wait_until(what: Callable[[], bool], *, seconds: float = 60, why: str = "") -> None:
    """Wait for a condition, never for time; fail loudly when it does not come."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain {why}")
        time.sleep(0.01)


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives as long as the block, and dies with the test run whatever happens to it."""
    child = subprocess.Popen(leashed(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def _answers(url: str) -> bool:
    client = Redis.from_url(url, socket_timeout=1)
    try:
        return bool(client.ping())
    except RedisError:
        return False
    finally:
        client.close()


@contextmanager
def valkey(folder: Path, *extra: str, port: int | None = None) -> Iterator[Valkey]:
    """A Valkey with durable settings in `folder`."""
    server = Valkey(folder, port or free_port(), extra)
    with running(server.command()):
        wait_until(lambda: _answers(server.url), why="for Valkey")
        yield server


@contextmanager
def mongod(folder: Path, *extra: str) -> Iterator[Mongod]:
    """A mongod in `folder` that is primary of its replica set of one."""
    server = Mongod(folder, free_port(), extra)
    with running(server.command()):
        primary: MongoClient[dict[str, Any]]
        primary = MongoClient(server.host, directConnection=True, serverSelectionTimeoutMS=10_000)
        with primary as client:
            members = [{"_id": 0, "host": server.host}]
            client.admin.command("replSetInitiate", {"_id": "weir", "members": members})
            wait_until(lambda: bool(client.admin.command("hello").get("isWritablePrimary")), why="for mongod")
        yield server


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with mongod(tmp_path_factory.mktemp("mongod"), "--setParameter", "ttlMonitorSleepSecs=1") as server:
        yield server


@pytest.fixture
def mongo_url(mongo_server: Mongod) -> str:
    """A database of the test's own."""
    return mongo_server.url.replace("/weir?", f"/t{uuid.uuid4().hex[:12]}?")


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Valkey of the test's own."""
    with valkey(tmp_path / "valkey") as server:
        yield server.url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Link]:
    async with Link(redis_url) as link:
        yield link


@pytest.fixture
async def cold(mongo_url: str) -> AsyncIterator[ColdBook]:
    book = ColdBook(mongo_url)
    await book.prepare()
    yield book
    await book.client.drop_database(book.db.name)
    await book.close()


@pytest.fixture
def vault() -> Vault:
    return Vault(MASTER_KEY)


@pytest.fixture
async def opened(cold: ColdBook, redis: Link, vault: Vault) -> Link:
    """Redis with every partition open."""
    await publish.ensure_pepper(cold, vault)
    await reopen.reopen(cold, redis, await reopen.closed_partitions(redis), term=1)
    return redis


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One Weir for all tests that do not break it, on its bundled servers."""
    with running_stack(tmp_path_factory.mktemp("weir")) as running:
        yield running
