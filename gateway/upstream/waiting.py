"""Requests that wait for room at an upstream: one line a model, first come, first served, bounded in length and time.

A place that becomes free is given away at once, to whoever has waited longest of those who can use it; nobody who comes
later finds it. A caller who leaves is out of the line, and what was just given to it goes back.
"""

import asyncio
import itertools
from typing import NamedTuple, Protocol

from gateway import metrics
from gateway.refusals import Refusal
from ledger import tally

_SOONEST_S = 0.001  # a timer may be early by as much


class Waiter(Protocol):
    """A request that wants to be sent."""

    def go(self) -> float | None:
        """Take a place: None if there was one, else how long until it is worth another try.

        Refusal if waiting is of no use.
        """
        ...


class Line(NamedTuple):
    """A model's line: how many may wait on this worker, and for how long."""

    name: str
    most: int
    within_s: float


class Waiting:
    """All lines of this worker."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[int, tuple[Waiter, asyncio.Future[None]]]] = {}
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    async def turn(self, line: Line, waiter: Waiter) -> bool:
        """Wait until it has taken a place; False if the line is full or the time is up."""
        waiting = self._lines.setdefault(line.name, {})
        try:
            if not waiting and waiter.go() is None:
                return True
            if len(waiting) >= line.most:
                return False
            number, future = next(self._numbers), asyncio.get_running_loop().create_future()
            waiting[number] = (waiter, future)
            tally.move(metrics.QUEUE_WAITING, line.name, by=1)
            try:
                self.serve()
                await asyncio.wait((future,), timeout=line.within_s)
                return future.done()
            finally:
                tally.move(metrics.QUEUE_WAITING, line.name, by=-1)
                waiting.pop(number, None)
        finally:
            if not waiting and self._lines.get(line.name) is waiting:
                del self._lines[line.name]

    def serve(self) -> None:
        """Give away what is free."""
        if not self._lines:
            return
        soonest, stuck = None, set[str]()
        while heads := [(next(iter(line)), name) for name, line in self._lines.items() if line and name not in stuck]:
            number, name = min(heads)
            waiter, future = self._lines[name][number]
            wait_s = _go(waiter)
            if wait_s is None:
                del self._lines[name][number]
                future.set_result(None)
                continue
            stuck.add(name)
            soonest = wait_s if soonest is None else min(soonest, wait_s)
        self._look_again(soonest)

    def _look_again(self, after_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if after_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(after_s, _SOONEST_S), self.serve)


def _go(waiter: Waiter) -> float | None:
    """As `go`; where waiting has become of no use, it may be of use again before the time is up."""
    try:
        return waiter.go()
    except Refusal as refusal:
        return refusal.retry_after_s or 1.0
