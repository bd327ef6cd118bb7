"""Few keys and very many, in turn on the same books; and how fast the ledger writes what they leave behind."""

import time
from typing import NamedTuple

import psutil

from bench import keys
from bench.arena import Arena
from bench.contestants import weir
from bench.load import closed
from bench.load.closed import Keys
from bench.machine import cpu_s, pin


def _made(arena: Arena, count: int) -> Keys:
    if arena.keys is None:
        arena.keys = keys.make(arena.stack, count, arena.folder / "keys")
    return arena.keys


class ManyKeys(NamedTuple):
    """One caller, each request under a key drawn from so many."""

    name: str
    few: int
    many: int
    connections: int
    seconds: int
    rounds: int

    def who(self, arena: Arena) -> list[str]:
        return [f"{count:,} keys" for count in (self.few, self.many)] if weir.NAME in arena.contestants else []

    def measure(self, arena: Arena, name: str) -> dict[str, float]:
        made = _made(arena, self.many)
        chosen = made._replace(first=int(name.partition(" ")[0].replace(",", "")))
        with arena.turn(weir.NAME) as contestant:
            sample = closed.run(contestant, seconds=self.seconds, connections=self.connections, keys=chosen)
            rss = sum(process.memory_info().rss for process in contestant.processes)
            redis = sum(process.memory_info().rss for process in arena.stack.redis_server())
        return {**sample.values(), "rss_mb": rss / 1e6, "redis_rss_mb": redis / 1e6}


class Drain(NamedTuple):
    """The ledger sleeps while events pile up, then writes them alone on the measured core."""

    name: str
    keys: int
    seconds: int
    rounds: int

    def who(self, arena: Arena) -> list[str]:
        return [weir.NAME] if weir.NAME in arena.contestants else []

    def measure(self, arena: Arena, name: str) -> dict[str, float]:
        made = _made(arena, self.keys)
        ledger = arena.stack.ledger()
        pin(ledger, arena.core)
        with arena.turn(name) as contestant:
            closed.run(contestant, seconds=self.seconds, connections=64, keys=made)
            time.sleep(0.5)
            events = arena.stack.waiting()
        before, cpu_before = time.monotonic(), cpu_s(ledger)
        arena.stack.wait_until_written()
        took = time.monotonic() - before
        pin(ledger, arena.other_core)
        return {"events": events, "events_per_s": events / took, "cpu_us": _per(ledger, cpu_before, events)}


def _per(ledger: list[psutil.Process], before: float, events: int) -> float:
    return (cpu_s(ledger) - before) / max(events, 1) * 1e6
