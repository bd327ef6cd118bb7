"""Requests in flight: one timer per worker renews every lease and reports what each has cost so far.

A hold is a lease. What was reported last is what a request costs if this process dies (docs/reliability.md), so streams
report every tick; a request that has nothing new to report only renews, well before its lease ends.
"""

import asyncio
import contextlib
import time
from typing import Protocol

from ledger import hot, log
from ledger.hot import Fenced, Place
from ledger.link import Caller, StoreUnavailable

TICK_S = 2.0
RENEW_S = 15.0


class Flight(Protocol):
    """One request that holds money."""

    rid: str
    place: Place

    def look(self, now: float) -> None:
        """Once a tick (`now`: `time.monotonic`): give up on a caller who has stopped reading."""
        ...

    def used_nanos(self) -> int:
        """A lower bound of what it has cost so far."""
        ...

    def stop(self) -> None:
        """The cost has reached the hold: end it."""
        ...


class Flights:
    """Everything in flight on this worker."""

    def __init__(self, redis: Caller, *, tick_s: float = TICK_S) -> None:
        self._redis = redis
        self._tick_s = tick_s
        self._flying: dict[str, Flight] = {}
        self._renewed: dict[str, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._flying)

    def add(self, flight: Flight) -> None:
        self._flying[flight.rid] = flight

    def remove(self, flight: Flight) -> None:
        self._flying.pop(flight.rid, None)
        self._renewed.pop(flight.rid, None)

    async def renew_for_ever(self) -> None:
        """The timer; a Redis that is away for a while costs nothing, because a lost lease only settles late."""
        while True:
            await asyncio.sleep(self._tick_s)
            await asyncio.gather(*(self._renew(flight) for flight in tuple(self._flying.values())))

    async def _renew(self, flight: Flight) -> None:
        now = time.monotonic()
        flight.look(now)
        at, reported = self._renewed.setdefault(flight.rid, (now, 0))
        used = flight.used_nanos()
        if used <= reported and now - at < RENEW_S:
            return
        with contextlib.suppress(StoreUnavailable, Fenced):
            word = await hot.progress(self._redis, flight.place, flight.rid, used_nanos=used)
            if flight.rid in self._flying:
                self._renewed[flight.rid] = (now, used)
            if word == "STOP":
                log.get().warning("stopped_at_hold", rid=flight.rid, account=flight.place.account)
                flight.stop()
