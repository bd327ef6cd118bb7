"""Another gateway on the books of the one that runs: how long until it answers, and what it weighs before it works."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.arena import Arena
from bench.contest import Contestant
from bench.contestants import weir
from bench.load.once import obstacle
from bench.machine import CannotRunError, free_port, started
from bench.stack import workers


@contextmanager
def gateway(arena: Arena, **settings: str) -> Iterator[tuple[Contestant, float]]:
    """A gateway of one worker, once it has answered one metered request; and after how many seconds it did."""
    url = f"http://127.0.0.1:{free_port()}"
    metrics = arena.folder / "fresh-metrics"
    metrics.mkdir(exist_ok=True)
    environment = arena.stack.environment(
        WEIR_GATEWAY_ADDR=url.removeprefix("http://"), PROMETHEUS_MULTIPROC_DIR=str(metrics), **settings
    )
    ours = os.sched_getaffinity(0)
    log = arena.folder / "fresh.err"
    with log.open("ab") as errors:
        before = time.monotonic()
        os.sched_setaffinity(0, {arena.core})  # a child inherits it
        try:
            command = [sys.executable, "-m", "gateway"]
            with started(command, environment=environment, stdout=subprocess.DEVNULL, log=errors) as process:
                os.sched_setaffinity(0, ours)
                contestant = _reached(arena.contestants[weir.NAME], url)
                if why := obstacle(contestant.plain, while_true=lambda: process.poll() is None):
                    raise CannotRunError(f"a second gateway {_state(process, why)}, and said {_tail(log)}")
                seconds = time.monotonic() - before
                yield contestant._replace(processes=workers(psutil.Process(process.pid), url)), seconds
        finally:
            os.sched_setaffinity(0, ours)


def _state(process: subprocess.Popen[bytes], why: str) -> str:
    code = process.poll()
    return f"does not answer ({why})" if code is None else f"ended with {code}"  # -11: of signal 11


def _tail(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").strip().splitlines()[-12:]) or "nothing"


def _reached(other: Contestant, url: str) -> Contestant:
    plain, stream = (way._replace(url=f"{url}/openai/v1/chat/completions") for way in (other.plain, other.stream))
    return other._replace(plain=plain, stream=stream)
