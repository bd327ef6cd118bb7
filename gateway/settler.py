"""Ended requests on their way to Redis. The queue belongs to the application: no cancelled request takes its charge along.

A settle is kept until Redis has answered, over reconnects and reopenings; at shutdown the queue is drained.
"""

import asyncio
from typing import NamedTuple

from gateway import metrics
from ledger import common_metrics, facts, hot, log
from ledger.facts import Facts
from ledger.hot import Ended, Fenced, Place
from ledger.link import Caller, StoreUnavailable

_RETRY_S = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class Settlement(NamedTuple):
    """How one request ended: what it cost, and the event that records it."""

    rid: str
    place: Place
    cost_nanos: int
    tokens: int | None
    admitted_us: int
    facts: Facts
    void: bool = False


class Settler:
    """Settles in the background; `put` never waits and never fails."""

    def __init__(self, redis: Caller) -> None:
        self._redis = redis
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, settlement: Settlement) -> None:
        task = asyncio.create_task(self._settle(settlement))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, within_s: float) -> int:
        """Wait until everything is settled or the time is up; how many are not."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        return len(self._tasks)

    async def _settle(self, s: Settlement) -> None:
        event = facts.encode(s.facts)
        attempt = 0
        metrics.SETTLES_RETAINED.inc()
        try:
            while True:
                try:
                    with common_metrics.SCRIPT_SECONDS.labels("settle").time():
                        ended = await hot.settle(
                            self._redis,
                            s.place,
                            s.rid,
                            cost_nanos=s.cost_nanos,
                            event=event,
                            admitted_us=s.admitted_us,
                            tokens=s.tokens,
                            void=s.void,
                        )
                    break
                except (StoreUnavailable, Fenced):
                    await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                    attempt += 1
        finally:
            metrics.SETTLES_RETAINED.dec()
        if isinstance(ended, Ended):
            _count(s, ended)
        else:
            log.get().error("settle_too_old", rid=s.rid, account=s.place.account)


def _count(s: Settlement, ended: Ended) -> None:
    f = s.facts
    provider = f.provider or metrics.OTHER
    metrics.REQUESTS.labels(f.dialect, f.endpoint, f.model, f.outcome).inc()
    if s.void or ended.end == "repeat":
        return
    metrics.CHARGE_NANOS.labels(provider, f.model).inc(ended.charge_nanos)
    for bucket, count in f.usage.items():
        if isinstance(count, int):
            metrics.TOKENS.labels(provider, f.model, bucket).inc(count)
    if f.estimated:
        metrics.ESTIMATED.labels(provider).inc()
    if ended.shortfall_nanos:
        metrics.SHORTFALL_NANOS.inc(ended.shortfall_nanos)
        log.get().warning("shortfall", rid=s.rid, account=s.place.account, model=f.model)
