"""What the bench asks of the machine."""

import time
from pathlib import Path

import psutil
from redis import Redis

from bench.machine import cpu_s, family
from tests.conftest import valkey, wait_until


def test_cpu_is_counted_by_the_clock_of_the_process() -> None:
    before = time.process_time()
    counted = cpu_s([psutil.Process()])
    assert before <= counted <= time.process_time()
    assert cpu_s([psutil.Process(), psutil.Process()]) >= 2 * counted


def test_the_child_that_writes_redis_file_anew_is_nobody_to_measure(tmp_path: Path) -> None:
    """It ended in the middle of a run, and was asked what it was."""
    with valkey(tmp_path) as server, Redis.from_url(server.url) as redis:
        (root,) = [each for each in psutil.Process().children() if str(server.port) in " ".join(each.cmdline())]
        redis.mset({f"key{n}": "value" for n in range(100)})
        redis.config_set("rdb-key-save-delay", 100_000)
        redis.bgrewriteaof()
        wait_until(lambda: bool(root.children()), why="for the child")
        assert family(root) == [root]
