"""As many requests as one core carries, at so many connections and with prompts of such a size; at one, the latency."""

from typing import NamedTuple

from bench.arena import DIRECT, Arena
from bench.contestants import weir
from bench.load import closed
from bench.machine import cpu_s


class Crowd(NamedTuple):
    """wrk against each contestant in turn."""

    name: str
    connections: int
    seconds: int
    rounds: int
    size: int = 0
    direct: bool = False
    slow: bool = True

    def who(self, arena: Arena) -> list[str]:
        return arena.names(slow=self.slow, direct=self.direct)

    def measure(self, arena: Arena, name: str) -> dict[str, float]:
        stores = arena.stack.redis_server() if name == weir.NAME else []
        with arena.turn(name) as contestant:
            before = cpu_s(stores)
            sample = closed.run(contestant, seconds=self.seconds, connections=self.connections, size=self.size)
            used = cpu_s(stores) - before
        values = sample.values()
        if name == DIRECT:  # what it has of processes writes streams, and took no part
            del values["cpu_us"], values["busy"]
        if stores:
            values["redis_us"] = used / sample.requests * 1e6
        return values
