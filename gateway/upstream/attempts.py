"""Asking until somebody answers: failover before the first byte, under the same hold, and never after it.

A failure moves to the next upstream when another might do better: no connection, no answer in time, a 429, a 5xx, or a
credential that is refused. The caller's own mistakes (other 4xx) are passed on as they are. Retries come out of a budget,
and the search has a deadline. A request whose answer was lost may be billed to the operator by both; the caller pays once,
for the one that answered.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import replace

from gateway import metrics
from gateway.dialects.shape import Dialect, Outgoing
from gateway.headers import Headers
from gateway.refusals import Refusal, unavailable
from gateway.upstream import quota
from gateway.upstream.choice import NoRoom, Want, choose, spot_of
from gateway.upstream.client import Answer, Chosen
from gateway.upstream.pools import Pools
from gateway.upstream.waiting import Line
from ledger import log, tally

SEARCH_WITHIN_S: Final = 60.0
TOO_MANY, REFUSED = 429, (401, 402, 403)
BROKEN: Final = frozenset((408, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529))


class Search:
    """One request's way to an answer. `chosen` is where it was asked last; `close` must be called when all is over.

    `stages`: where it may be asked, the next only when nobody of the one before can serve. `line`: where it may wait.
    """

    def __init__(self, pools: Pools, stages: Sequence[Sequence[Chosen]], want: Want, line: Line | None = None) -> None:
        self._pools = pools
        self._stages = stages
        self._want = want
        self._line = line
        self._tried: list[Chosen] = []
        self._until = time.monotonic() + SEARCH_WITHIN_S
        self.chosen: Chosen | None = None
        pools.budget.earn()

    async def answer(
        self, dialect: Dialect, headers: Headers, write: Callable[[Chosen], Outgoing], *, form: bool
    ) -> Answer:
        """The first answer that is worth passing on, its body still to be read; Refusal if there is none.

        `write`: the request as it is sent there.
        """
        last: Answer | Refusal | None = None
        try:
            while True:
                try:
                    chosen = self._next() if last is not None else self._first() or await self._in_turn()
                except Refusal as refusal:
                    if isinstance(last, Refusal) or last is None:
                        raise last or refusal from None
                    return last
                if last is not None and not isinstance(last, Refusal):
                    last.drop()
                if last is not None:
                    tally.count(metrics.FAILOVERS, chosen.upstream.name)
                last = await self._ask(chosen, dialect, headers, write(chosen), form=form)
                if not isinstance(last, Refusal) and not self._is_failure(chosen, last):
                    return last
                if not self._may_go_on():
                    if isinstance(last, Refusal):
                        raise last
                    return last
        finally:
            last = None  # a refusal that is raised knows this frame, which must not know the refusal

    def _first(self) -> Chosen | None:
        """Where to ask first; None if there is a line for it, in which it may have to wait."""
        self._pools.waiting.serve()  # who waits comes first
        self._note_limits()
        return self._next() if self._line is None else None

    async def _in_turn(self) -> Chosen:
        """The same, in its turn; if that takes too long, as if there were no line."""
        assert self._line is not None
        self._want = replace(self._want, patient=True)
        went = await self._pools.waiting.turn(self._line, self)
        self._want = replace(self._want, patient=False)
        self._until = time.monotonic() + SEARCH_WITHIN_S
        return self.chosen if went and self.chosen is not None else self._next()

    def go(self) -> float | None:
        """A Waiter's turn: take a place if there is one."""
        try:
            self._next()
        except NoRoom as full:
            return full.retry_after_s
        return None

    def _next(self) -> Chosen:
        chosen = choose(self._stages, self._pools.health, self._tried, self._want)
        self._leave()
        self._tried.append(chosen)
        self.chosen = chosen
        self._pools.take(chosen, self._want.tokens)
        return chosen

    def _note_limits(self) -> None:
        health = self._pools.health
        if health.rooms:
            for each in self._stages[0]:
                if health.room_in_s(spot_of(each), self._want.tokens):
                    tally.count(metrics.UPSTREAM_LIMITED, each.upstream.name)

    def _may_go_on(self) -> bool:
        more = len(self._tried) < sum(map(len, self._stages))
        return more and time.monotonic() < self._until and self._pools.budget.spend()

    async def _ask(
        self, chosen: Chosen, dialect: Dialect, headers: Headers, outgoing: Outgoing, *, form: bool
    ) -> Answer | Refusal:
        began = time.monotonic()
        asking = self._pools.upstreams.ask(chosen, dialect, headers, outgoing, form=form)
        try:
            if chosen.upstream.first_byte_timeout_s is None:
                found = await asking
            else:
                found = await asyncio.wait_for(asking, chosen.upstream.first_byte_timeout_s)
        except TimeoutError:
            self._pools.upstreams.failed(chosen.upstream.name, "timeout")
            self._pools.health.failed(spot_of(chosen))
            return unavailable("The upstream did not answer in time; please try again.")
        except Refusal as refusal:
            self._pools.health.failed(spot_of(chosen))
            return refusal
        if found.status not in BROKEN:
            self._pools.health.answered(spot_of(chosen), time.monotonic() - began)
        said = quota.read(found.headers, time.time())
        if said:
            self._pools.health.told(spot_of(chosen), said)
        return found

    def _is_failure(self, chosen: Chosen, answer: Answer) -> bool:
        """Note what a status says of an upstream; whether another should be asked."""
        health, spot = self._pools.health, spot_of(chosen)
        if answer.status == TOO_MANY:
            health.cool(spot, quota.retry_after_s(answer.headers, time.time()))
        elif answer.status in REFUSED:
            log.get().error("upstream_refused", upstream=chosen.upstream.name, status=answer.status)
            tally.count(metrics.CREDENTIAL_REFUSED, chosen.upstream.name)
            health.refuse(chosen.upstream.id, chosen.credential)
        elif answer.status in BROKEN:
            health.failed(spot)
        else:
            return False
        return True

    def _leave(self, used: int = 0) -> None:
        if self.chosen is not None:
            left, self.chosen = self.chosen, None  # first: whoever gets the place may look at us
            self._pools.leave(left, self._want.tokens, used=used)

    def close(self, used: int = 0) -> None:
        """The request is over, however it went, and has used so many tokens."""
        self._leave(used)
