"""Latency under a fixed rate, counted from when each request was due."""

from typing import NamedTuple

from bench.arena import Arena
from bench.load import open as open_loop
from bench.machine import CannotRunError


class Rate(NamedTuple):
    """So many requests a second, whatever the answers do."""

    name: str
    per_s: int
    seconds: int
    rounds: int
    all: bool = True
    """Or only those that can carry it."""

    def who(self, arena: Arena) -> list[str]:
        return [name for name in arena.names(direct=True) if self.all or not arena.contestants[name].rests]

    def measure(self, arena: Arena, name: str) -> dict[str, float]:
        with arena.turn(name) as contestant:
            answered = open_loop.run(contestant.plain, rate=self.per_s, seconds=self.seconds)
        if refused := sum(not one.ok for one in answered):
            raise CannotRunError(f"of {len(answered)} answers {refused} were errors")
        return open_loop.values(answered)
