"""As many requests as one core carries, at so many connections and with prompts of such a size; at one, the latency."""

import time
from typing import NamedTuple

from bench.arena import DIRECT, Arena
from bench.contest import Contestant
from bench.contestants import weir
from bench.load import closed
from bench.machine import cpu_s

_LOOK_S, _IDLE_S, _PATIENCE_S = 0.2, 0.5, 30.0


class Crowd(NamedTuple):
    """wrk against each contestant in turn."""

    name: str
    connections: int
    seconds: int
    rounds: int
    size: int = 0
    direct: bool = False
    slow: bool = True
    with_ledger: bool = False
    """Weir alone, its ledger and MongoDB at work on the core of Redis; else they have nothing to do meanwhile."""

    def who(self, arena: Arena) -> list[str]:
        if self.with_ledger:
            return [weir.NAME]
        return arena.names(slow=self.slow, direct=self.direct)

    def measure(self, arena: Arena, name: str) -> dict[str, float]:
        stores = arena.stack.redis_server() if name == weir.NAME else []
        with arena.turn(name, with_ledger=self.with_ledger) as contestant:
            before, cpu_before, answered_before = cpu_s(stores), cpu_s(contestant.processes), arena.shared.read()
            sample = closed.run(contestant, seconds=self.seconds, connections=self.connections, size=self.size)
            used = cpu_s(stores) - before
            values = sample.values()
            if contestant.rests:
                # It works on at what wrk has left behind; all of that counts, the answers and the time.
                took_s = sample.duration_s + _until_idle(contestant)
                answered = arena.shared.read() - answered_before
                cpu = cpu_s(contestant.processes) - cpu_before
                values |= {"requests": answered, "requests_per_s": answered / took_s, "cpu_us": cpu / answered * 1e6}
                values["busy"] = cpu / took_s
        if name == DIRECT:  # what it has of processes writes streams, and took no part
            del values["cpu_us"], values["busy"]
        if stores:
            values["redis_us"] = used / sample.requests * 1e6
        return values


def _until_idle(contestant: Contestant) -> float:
    """Seconds until it was last seen at work."""
    began = last = time.monotonic()
    used = cpu_s(contestant.processes)
    while time.monotonic() - last < _IDLE_S and time.monotonic() - began < _PATIENCE_S:
        time.sleep(_LOOK_S)
        now = cpu_s(contestant.processes)
        if now - used > _LOOK_S / 5:
            last = time.monotonic()
        used = now
    return last - began
