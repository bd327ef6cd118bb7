"""wrk on the core of all the rest: as many requests as the one under test can take, and what they cost it."""

import os
import subprocess
import time
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import msgspec

from bench.contest import Contestant
from bench.machine import CannotRunError, cpu_s

_SCRIPT = Path(__file__).with_name("post.lua")


class Keys(NamedTuple):
    """A file of keys, one a line and all of one length, and how many of them are drawn from."""

    file: Path
    first: int


class Sample(msgspec.Struct):
    """One run of wrk."""

    requests: int
    duration_s: float
    p50_us: int
    p99_us: int
    refused: int
    broken: int
    cpu_s: float = 0.0

    def values(self) -> dict[str, float]:
        """As the results keep it. `busy` is the share of its core: below ~0.95 something else was the limit."""
        return {
            "requests": self.requests,
            "requests_per_s": self.requests / self.duration_s,
            "cpu_us": self.cpu_s / self.requests * 1e6,
            "busy": self.cpu_s / self.duration_s,
            "p50_ms": self.p50_us / 1000,
            "p99_ms": self.p99_us / 1000,
        }


def run(contestant: Contestant, *, seconds: int, connections: int, size: int = 0, keys: Keys | None = None) -> Sample:
    """One run against the contestant's plain way."""
    before = cpu_s(contestant.processes)
    with NamedTemporaryFile() as body:
        body.write(contestant.plain.body(size=size))
        body.flush()
        ended = subprocess.run(
            [
                "wrk",
                "-t1",
                f"-c{connections}",
                f"-d{seconds}s",
                "--timeout",
                "30s",
                "-s",
                _SCRIPT,
                contestant.plain.url,
            ],
            env={**os.environ, **_environment(contestant, body.name, keys)},
            capture_output=True,
            timeout=seconds + 60,
            check=False,
        )
    time.sleep(0.1)  # what wrk leaves in flight is served, and belongs to the bill
    used = cpu_s(contestant.processes) - before
    lines = [line for line in ended.stdout.splitlines() if line.startswith(b"{")]
    if not lines:
        raise CannotRunError(f"wrk failed: {(ended.stderr or ended.stdout).decode().strip()[-200:]}")
    sample = msgspec.json.decode(lines[-1], type=Sample)
    sample.cpu_s = used
    if not sample.requests or sample.refused or sample.broken:
        raise CannotRunError(f"of {sample.requests} answers {sample.refused} were errors, {sample.broken} broken")
    return sample


def _environment(contestant: Contestant, body: str, keys: Keys | None) -> dict[str, str]:
    way = contestant.plain
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {way.key}", **way.headers}
    lines = "\n".join(f"{name}: {value}" for name, value in headers.items())
    drawn = {} if keys is None else {"WEIR_BENCH_KEYS": str(keys.file), "WEIR_BENCH_OF": str(keys.first)}
    return {"WEIR_BENCH_BODY": body, "WEIR_BENCH_HEADERS": lines, **drawn}
