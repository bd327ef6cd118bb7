"""Load: wrk on the core of all the rest, and what it did to the process under test."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil

from bench.machine import CannotRunError, cpu_s

CONNECTIONS = 64
_SCRIPT = Path(__file__).with_name("post.lua")


class Target(msgspec.Struct):
    """What is loaded: where it listens, and whose CPU it costs."""

    name: str
    url: str
    processes: Sequence[psutil.Process] = ()
    key: str = "sk-none"


class Sample(msgspec.Struct):
    """One run of wrk."""

    requests: int
    duration_s: float
    p50_us: int
    p99_us: int
    refused: int
    broken: int
    cpu_s: float = 0.0

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.duration_s

    @property
    def cpu_us_per_request(self) -> float:
        return self.cpu_s / self.requests * 1e6

    @property
    def busy(self) -> float:
        """The share of its core that the process under test used: below ~0.95 something else was the limit."""
        return self.cpu_s / self.duration_s


def run(target: Target, *, seconds: int, connections: int) -> Sample:
    before = cpu_s(target.processes)
    ended = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(_SCRIPT), f"{target.url}/v1/chat/completions"],
        env={**os.environ, "WEIR_BENCH_KEY": target.key},
        capture_output=True,
        timeout=seconds + 30,
        check=False,
    )
    time.sleep(0.1)  # what wrk leaves in flight is served, and belongs to the bill
    used = cpu_s(target.processes) - before
    lines = [line for line in ended.stdout.splitlines() if line.startswith(b"{")]
    if not lines:
        raise CannotRunError(f"wrk failed: {(ended.stderr or ended.stdout).decode().strip()[-200:]}")
    sample = msgspec.json.decode(lines[-1], type=Sample)
    sample.cpu_s = used
    if not sample.requests or sample.refused or sample.broken:
        raise CannotRunError(
            f"{target.name}: of {sample.requests} answers {sample.refused} were errors, {sample.broken} broken"
        )
    return sample
