"""What the bench asks of the machine."""

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest
from redis import Redis

from bench.arena import Arena
from bench.contest import Contestant, Way
from bench.machine import cpu_s, family
from bench.stack import Stack
from tests.conftest import valkey, wait_until


def test_cpu_is_counted_by_the_clock_of_the_process() -> None:
    before = time.process_time()
    counted = cpu_s([psutil.Process()])
    assert before <= counted <= time.process_time()
    assert cpu_s([psutil.Process(), psutil.Process()]) >= 2 * counted


def test_who_has_ended_is_told_by_who_measures_it(tmp_path: Path) -> None:
    process = psutil.Popen([sys.executable, "-c", ""])
    process.wait()
    arena = Arena(tmp_path, (0, 1))
    arena.stack = cast("Stack", SimpleNamespace(wait_until_drained=lambda: None, ledger_asleep=nullcontext))
    arena.contestants["peer"] = Contestant("peer", "1", Way("", ""), Way("", ""), (process,), rests=True)
    with arena.turn("peer") as contestant, pytest.raises(psutil.NoSuchProcess):
        cpu_s(contestant.processes)


def test_one_that_has_ended_keeps_no_other_asleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child can end between the look at a peer's processes and the signal to each."""
    gone, there = (
        psutil.Popen([sys.executable, "-c", ""]),
        psutil.Popen([sys.executable, "-c", "import signal; signal.pause()"]),
    )
    gone.wait()
    try:
        there.suspend()
        wait_until(lambda: there.status() == psutil.STATUS_STOPPED, why="for the stop")
        monkeypatch.setattr("bench.arena.family", lambda _root: [gone, there])
        arena = Arena(tmp_path, (0, 1))
        arena.stack = cast("Stack", SimpleNamespace(wait_until_drained=lambda: None, ledger_asleep=nullcontext))
        arena.contestants["peer"] = Contestant("peer", "1", Way("", ""), Way("", ""), (gone,), rests=True)
        with arena.turn("peer"):
            wait_until(lambda: there.status() != psutil.STATUS_STOPPED, why="for the wake")
        wait_until(lambda: there.status() == psutil.STATUS_STOPPED, why="for the sleep")
    finally:
        there.kill()
        there.wait()


def test_the_child_that_writes_redis_file_anew_is_nobody_to_measure(tmp_path: Path) -> None:
    """It ended in the middle of a run, and was asked what it was."""
    with valkey(tmp_path) as server, Redis.from_url(server.url) as redis:
        (root,) = [each for each in psutil.Process().children() if str(server.port) in " ".join(each.cmdline())]
        redis.mset({f"key{n}": "value" for n in range(100)})
        redis.config_set("rdb-key-save-delay", 100_000)
        redis.bgrewriteaof()
        wait_until(lambda: bool(root.children()), why="for the child")
        assert family(root) == [root]
