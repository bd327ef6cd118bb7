"""The operator's limits of upstreams: this worker's share of each, kept in its memory.

Rates work as those of accounts do (GCRA, ledger/lua/admit.lua): a minute's worth may come at once, and then as much as a
minute brings. Tokens count as quoted when a request begins, and as measured when it has ended.
"""

import math
from collections.abc import Callable, Iterable

from ledger.catalogue import Upstream, UpstreamLimits

MINUTE_S = 60.0
_AT_ONCE_S = 1e-6  # sums of fractions: less than that is now


class Rate:
    """So much a minute."""

    def __init__(self) -> None:
        self._until = 0.0  # when all that was taken will have been worked off

    def wait_s(self, now: float, amount: float, a_minute: float) -> float:
        """How long until this much may be taken; 0 if now. Who wants more than a minute's worth waits for all of it."""
        cost = amount * MINUTE_S / a_minute
        wait = max(self._until, now) + cost - now - max(MINUTE_S, cost)
        return wait if wait > _AT_ONCE_S else 0.0

    def take(self, now: float, amount: float, a_minute: float) -> None:
        self._until = max(self._until, now) + amount * MINUTE_S / a_minute

    def correct(self, now: float, more: float, a_minute: float) -> None:
        """What was taken came to so much more, or less; it never keeps anyone waiting for longer than a minute."""
        self._until = min(self._until + more * MINUTE_S / a_minute, max(self._until, now + MINUTE_S))


class Room:
    """One upstream's limits and what is left of them. None is no limit."""

    def __init__(self) -> None:
        self.concurrency: int | None = None
        self.requests_a_minute: float | None = None
        self.tokens_a_minute: float | None = None
        self._requests, self._tokens = Rate(), Rate()

    def limit(self, limits: UpstreamLimits, share: int) -> None:
        """One of `share` workers may use an equal part, but always one request at a time."""
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        self.concurrency = None if limits.concurrency is None else max(limits.concurrency // share, 1)
        self.requests_a_minute = None if requests is None else requests / share
        self.tokens_a_minute = None if tokens is None else tokens / share

    def wait_s(self, now: float, in_flight: int, tokens: int) -> float:
        """How long until one more fits; infinite if that depends on when another one ends."""
        if self.concurrency is not None and in_flight >= self.concurrency:
            return math.inf
        wait = 0.0
        if self.requests_a_minute is not None:
            wait = self._requests.wait_s(now, 1, self.requests_a_minute)
        if self.tokens_a_minute is not None:
            counted = min(tokens, self.tokens_a_minute)
            wait = max(wait, self._tokens.wait_s(now, counted, self.tokens_a_minute))
        return wait

    def begin(self, now: float, tokens: int) -> None:
        if self.requests_a_minute is not None:
            self._requests.take(now, 1, self.requests_a_minute)
        if self.tokens_a_minute is not None:
            self._tokens.take(now, min(tokens, self.tokens_a_minute), self.tokens_a_minute)

    def end(self, now: float, tokens: int, used: int) -> None:
        if self.tokens_a_minute is not None:
            counted = min(tokens, self.tokens_a_minute)
            self._tokens.correct(now, min(used, self.tokens_a_minute) - counted, self.tokens_a_minute)


class Rooms:
    """The upstreams that have limits. What was used stays known when a limit changes."""

    def __init__(self, clock: Callable[[], float], *, share: int = 1) -> None:
        self._clock = clock
        self._share = share
        self._rooms: dict[str, Room] = {}

    def __bool__(self) -> bool:
        return bool(self._rooms)

    def learn(self, upstreams: Iterable[Upstream]) -> None:
        """These are the limits now."""
        limited = {each.id: each.limits for each in upstreams if each.limits != UpstreamLimits()}
        self._rooms = {name: self._rooms.get(name, Room()) for name in limited}
        for name, limits in limited.items():
            self._rooms[name].limit(limits, self._share)

    def wait_s(self, upstream: str, in_flight: int, tokens: int) -> float:
        room = self._rooms.get(upstream)
        return 0.0 if room is None else room.wait_s(self._clock(), in_flight, tokens)

    def begin(self, upstream: str, tokens: int) -> None:
        room = self._rooms.get(upstream)
        if room is not None:
            room.begin(self._clock(), tokens)

    def end(self, upstream: str, tokens: int, used: int) -> None:
        """A request that was counted with so many tokens has used so many."""
        room = self._rooms.get(upstream)
        if room is not None:
            room.end(self._clock(), tokens, used)
