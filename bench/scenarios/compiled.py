"""The same crowd at a gateway whose request path is compiled (`make compiled`)."""

from typing import NamedTuple

from bench.arena import Arena
from bench.contestants import weir
from bench.fresh import gateway
from bench.load import closed


class Compiled(NamedTuple):
    """Another worker, on the books of the one that runs the source as it is."""

    name: str
    connections: int
    seconds: int
    rounds: int

    def who(self, arena: Arena) -> list[str]:
        return [name for name in arena.names() if name == weir.NAME]

    def measure(self, arena: Arena, name: str) -> dict[str, float]:
        with arena.turn(name), gateway(arena, WEIR_COMPILED="1") as (fresh, _):
            closed.run(fresh, seconds=1, connections=self.connections)
            return closed.run(fresh, seconds=self.seconds, connections=self.connections).values()
