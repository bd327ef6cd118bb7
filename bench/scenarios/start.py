"""From nothing to the first metered answer, the stores running; and what the new worker weighs."""

import time
from typing import NamedTuple

from bench.arena import Arena
from bench.contestants import weir
from bench.fresh import gateway


class Start(NamedTuple):
    """One gateway of one worker is started and stopped."""

    name: str
    rounds: int

    def who(self, arena: Arena) -> list[str]:
        return [name for name in arena.names() if name == weir.NAME]

    def measure(self, arena: Arena, name: str) -> dict[str, float]:
        with arena.turn(name), gateway(arena) as (fresh, seconds):
            time.sleep(1)
            rss = sum(process.memory_info().rss for process in fresh.processes)
        return {"start_s": seconds, "rss_mb": rss / 1e6}
