"""What a relayed chunk costs, and what an open stream weighs."""

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

from bench.arena import Arena
from bench.contest import Contestant
from bench.contestants import weir
from bench.fresh import gateway
from bench.load import streams
from bench.machine import cpu_s

_ENDLESS = 1_000_000


class Chunks(NamedTuple):
    """CPU per chunk. The slow get a tenth of the streams, which is more than some of them can keep up with."""

    name: str
    streams: int
    chunks: int
    pace_ms: int
    rounds: int

    def who(self, arena: Arena) -> list[str]:
        return arena.names(direct=True)

    def measure(self, arena: Arena, name: str) -> dict[str, float]:
        writer = arena.writer(name)
        with arena.turn(name) as contestant:
            count = self.streams // 10 if contestant.slow else self.streams
            sent = writer.each(chunks=self.chunks, pace_ms=self.pace_ms).chunks
            before = cpu_s(contestant.processes)
            streamed = streams.run(contestant.stream, streams=count, ramp_s=0.5)
            time.sleep(0.1)
            used = cpu_s(contestant.processes) - before
        relayed = writer.sent().chunks - sent
        ideal_s = self.chunks * self.pace_ms / 1000
        return {
            "streams": count,
            "chunks": relayed,
            "cpu_us": used / relayed * 1e6,
            "first_ms": streamed.first_ms,
            "behind_s": max(streamed.seconds - 0.5 - ideal_s, 0.0),
        }


class Open(NamedTuple):
    """Memory per open stream: resident, before and while all are open, Weir's on a worker that has done nothing else."""

    name: str
    streams: int
    rounds: int

    def who(self, arena: Arena) -> list[str]:
        return arena.names(slow=False)

    def measure(self, arena: Arena, name: str) -> dict[str, float]:
        writer = arena.writer(name)
        writer.each(chunks=_ENDLESS, pace_ms=1_000)
        seen: list[int] = []

        def when_open() -> None:
            seen.append(_resident(contestant))
            writer.each(chunks=1, pace_ms=1_000)

        with arena.turn(name) as resident, _measured(arena, resident) as contestant:
            before = _resident(contestant)
            streams.run(contestant.stream, streams=self.streams, ramp_s=self.streams / 400, when_open=when_open)
            time.sleep(1)  # closing so many takes a while, and is nobody else's
        return {"kb": (seen[0] - before) / self.streams / 1000, "rss_mb": seen[0] / 1e6}


@contextlib.contextmanager
def _measured(arena: Arena, contestant: Contestant) -> Iterator[Contestant]:
    if contestant.name != weir.NAME:
        yield contestant
        return
    with gateway(arena) as (fresh, _):
        yield fresh


def _resident(contestant: Contestant) -> int:
    return sum(process.memory_info().rss for process in contestant.processes)
