"""Asking until somebody answers: failover before the first byte, under the same hold, and never after it.

A failure moves to the next upstream when another might do better: no connection, no answer in time, a 429, a 5xx, or a
credential that is refused. The caller's own mistakes (other 4xx) are passed on as they are. Retries come out of a budget,
and the search has a deadline. A request whose answer was lost may be billed to the operator by both; the caller pays once,
for the one that answered.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime

from gateway import metrics
from gateway.catalogues import Opened
from gateway.dialects.shape import Dialect, Outgoing
from gateway.headers import Headers
from gateway.refusals import Refusal, unavailable
from gateway.upstream.choice import candidates, choose, spot_of
from gateway.upstream.client import Answer, Chosen, Upstreams
from gateway.upstream.health import Budget, Health
from ledger import log, tally
from ledger.catalogue import Model

SEARCH_WITHIN_S = 60.0
_TOO_MANY, _REFUSED = 429, (401, 402, 403)
_BROKEN = frozenset((408, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529))


class Pools:
    """All upstreams of this worker, and what it has noticed of them."""

    def __init__(self, upstreams: Upstreams) -> None:
        self.upstreams = upstreams
        self.health = Health(time.monotonic)
        self.budget = Budget()
        self._version = 0
        self._able: dict[tuple[str, str], list[Chosen]] = {}

    def able(self, model: Model, opened: Opened, dialect: Dialect) -> list[Chosen]:
        """Where a model can be served; worked out once for a catalogue."""
        if opened.book.version != self._version:
            self._able.clear()
            self._version = opened.book.version
        key = (model.name, dialect.name)
        found = self._able.get(key)
        if found is None:
            found = self._able[key] = candidates(model, opened, dialect)
        return found


class Search:
    """One request's way to an answer. `chosen` is where it was asked last; `close` must be called when all is over."""

    def __init__(self, pools: Pools, able: Sequence[Chosen], sticky: str | None) -> None:
        self._pools = pools
        self._able = able
        self._sticky = sticky
        self._tried: list[Chosen] = []
        self._until = time.monotonic() + SEARCH_WITHIN_S
        self.chosen: Chosen | None = None
        pools.budget.earn()

    async def answer(
        self, dialect: Dialect, headers: Headers, write: Callable[[str], Outgoing], *, form: bool
    ) -> Answer:
        """The first answer that is worth passing on, its body still to be read; Refusal if there is none.

        `write`: the request under a model's name.
        """
        last: Answer | Refusal | None = None
        while True:
            try:
                chosen = self._next()
            except Refusal as refusal:
                if isinstance(last, Refusal) or last is None:
                    raise last or refusal from None
                return last
            if last is not None and not isinstance(last, Refusal):
                await last.aclose()
            if last is not None:
                tally.count(metrics.FAILOVERS, chosen.upstream.name)
            last = await self._ask(chosen, dialect, headers, write(chosen.target.model), form=form)
            if not isinstance(last, Refusal) and not self._is_failure(chosen, last):
                return last
            if not self._may_go_on():
                if isinstance(last, Refusal):
                    raise last
                return last

    def _next(self) -> Chosen:
        if len(self._able) == 1 and not self._tried:
            chosen = self._able[0]  # there is no other to spare it for: what it says is passed on
        else:
            chosen = choose(self._able, self._pools.health, self._tried, self._sticky)
        self._leave()
        self._tried.append(chosen)
        self.chosen = chosen
        self._pools.health.begin(spot_of(chosen))
        tally.move(metrics.UPSTREAM_OPEN, chosen.upstream.name, by=1)
        return chosen

    def _may_go_on(self) -> bool:
        return len(self._tried) < len(self._able) and time.monotonic() < self._until and self._pools.budget.spend()

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
        if found.status not in _BROKEN:
            self._pools.health.answered(spot_of(chosen), time.monotonic() - began)
        return found

    def _is_failure(self, chosen: Chosen, answer: Answer) -> bool:
        """Note what a status says of an upstream; whether another should be asked."""
        health, spot = self._pools.health, spot_of(chosen)
        if answer.status == _TOO_MANY:
            health.cool(spot, retry_after_s(answer.headers))
        elif answer.status in _REFUSED:
            log.get().error("upstream_refused", upstream=chosen.upstream.name, status=answer.status)
            health.refuse(chosen.upstream.id, chosen.credential)
        elif answer.status in _BROKEN:
            health.failed(spot)
        else:
            return False
        return True

    def _leave(self) -> None:
        if self.chosen is not None:
            self._pools.health.end(spot_of(self.chosen))
            tally.move(metrics.UPSTREAM_OPEN, self.chosen.upstream.name, by=-1)
            self.chosen = None

    def close(self) -> None:
        """The request is over, however it went."""
        self._leave()


def retry_after_s(headers: Headers) -> float | None:
    """How long a provider wants to be left alone: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    named = dict(headers)
    for name, each in ((b"retry-after-ms", 1000.0), (b"retry-after", 1.0)):
        try:
            return max(float(named[name]) / each, 0.0)
        except (KeyError, ValueError):
            continue
    try:
        return max(parsedate_to_datetime(named[b"retry-after"].decode("latin-1")).timestamp() - time.time(), 0.0)
    except (KeyError, ValueError, OverflowError):
        return None
