"""The same crowd at a gateway that runs its source as it is, as it does where nothing was compiled."""

from typing import NamedTuple

from bench.arena import Arena
from bench.contestants import weir
from bench.fresh import gateway
from bench.load import closed


class Interpreted(NamedTuple):
    """Another worker, on the books of the one that is compiled."""

    name: str
    connections: int
    seconds: int
    rounds: int

    def who(self, arena: Arena) -> list[str]:
        return [name for name in arena.names() if name == weir.NAME]

    def measure(self, arena: Arena, name: str) -> dict[str, float]:
        with arena.turn(name), gateway(arena, WEIR_COMPILED="0") as (fresh, _):
            closed.run(fresh, seconds=1, connections=self.connections)
            return closed.run(fresh, seconds=self.seconds, connections=self.connections).values()
