"""Ended requests on their way to Redis. The queue belongs to the application: no cancelled request takes its charge along.

Three nets. A settle is repeated until Redis has answered. With replicas it is kept until a barrier on the same server
has passed it, because an acknowledged write can be lost in a failover. And what waits longer than a moment is spilled to
disk, so that not even the death of this process loses it (docs/reliability.md).
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import lru_cache, partial
from typing import Any, Final

from redis.exceptions import ResponseError

from gateway import metrics
from gateway.flow import Signal
from gateway.spill import MAX_BYTES, Spill
from ledger import common_metrics, facts, hot, keyspace, log, scripts, tally
from ledger.hot import Ended, Fenced, Old, Place
from ledger.link import Caller, StoreUnavailable
from ledger.settlement import Settlement

_RETRY_S: Final[tuple[float, ...]] = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
# An error reply too (READONLY, NOREPLICAS, LOADING, MISCONF): a charge is never given up for one.
_AGAIN: Final = (StoreUnavailable, Fenced, ResponseError)
SPILL_AFTER_S: Final = 0.2
BARRIER_EVERY_S: Final = 0.1
ADOPT_EVERY_S: Final = 5.0
MOST_KEPT: Final = 100_000
_clock: Final = time.perf_counter
_observe_settle: Final = tally.observer(common_metrics.SCRIPT_SECONDS, "settle")


class Settler:
    """Settles in the background; `put` never waits and never fails.

    `replicas`: how many must have a settle before it is forgotten (0: an acknowledged write is on disk and that is enough).
    """

    def __init__(self, redis: Caller, *, spill: Spill, replicas: int = 0, barriers: Caller | None = None) -> None:
        self._redis = redis
        self._spill = spill
        self._replicas = replicas
        self._barriers = barriers or redis
        self._waiting: dict[str, tuple[Settlement, float]] = {}
        self._kept: dict[str, tuple[Settlement, str, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._empty = Signal()
        self._empty.set()

    @property
    def full(self) -> bool:
        """Whether so much is on its way that no new request may be admitted."""
        return len(self._waiting) + len(self._kept) >= MOST_KEPT or self._spill.bytes_used >= MAX_BYTES

    def start(self) -> None:
        loops = [self._spill_loop(), self._adopt_loop()]
        if self._replicas:
            loops.append(self._barrier_loop())
        self._loops = [asyncio.create_task(loop) for loop in loops]

    def put(self, settlement: Settlement, *, counted: bool = False) -> None:
        """Bring a charge home. `counted`: the metrics have it already."""
        if not self._waiting:
            self._empty.clear()
        self._waiting[settlement.rid] = (settlement, time.monotonic())
        began = _clock()
        # No task for the usual case, in which Redis answers at once.
        self._ask(settlement).add_done_callback(partial(self._heard, settlement, counted=counted, began=began))

    async def close(self, within_s: float) -> int:
        """Wait until everything has arrived or the time is up; how many are left, on disk, for the next worker."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), within_s)
        for task in (*self._loops, *self._tasks):
            task.cancel()
        left = [s for s, _ in self._waiting.values()] + [s for s, _, _ in self._kept.values()]
        self._write(s for s in left if not self._spill.holds(s.rid))
        self._spill.close()
        return len(left)

    def _heard(self, s: Settlement, reply: asyncio.Future[Any], *, counted: bool, began: float) -> None:
        try:
            ended = hot.ended(reply.result())
        except _AGAIN:
            self._in_background(self._settle(s, counted=counted))
            return
        _observe_settle(_clock() - began)
        self._book(s, ended, counted=counted)

    async def _settle(self, s: Settlement, *, counted: bool) -> None:
        """Until Redis has answered."""
        for attempt in itertools.count():
            metrics.SETTLES_RETAINED.set(len(self._waiting) + len(self._kept))
            await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
            try:
                ended = hot.ended(await self._ask(s))
            except _AGAIN:
                continue
            self._book(s, ended, counted=counted)
            return

    def _book(self, s: Settlement, ended: Ended | Old, *, counted: bool) -> None:
        if isinstance(ended, Old):
            self._in_background(self._claim(s))
            return
        if not counted:
            count(s, ended)
        del self._waiting[s.rid]
        if self._replicas and ended.end != "voided":
            self._kept[s.rid] = (s, ended.server, time.monotonic())
        else:
            self._arrived(s.rid)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ask(self, s: Settlement) -> asyncio.Future[Any]:
        return hot.settling(
            self._redis,
            Place(s.partition, s.account, s.key, s.line),
            s.rid,
            cost_nanos=s.cost_nanos,
            event=facts.encode(s.facts),
            admitted_us=s.admitted_us,
            tokens=s.tokens,
            void=s.void,
        )

    async def _claim(self, s: Settlement) -> None:
        """Too old for Redis to be sure that it was never posted: the ledger asks MongoDB first."""
        payload = facts.encode_any(s)
        while True:
            arrived = False
            with contextlib.suppress(StoreUnavailable, ResponseError):
                await self._redis.command("XADD", keyspace.claims(s.partition), "*", "settlement", payload)
                arrived = True
            if not arrived:
                await asyncio.sleep(_RETRY_S[-1])
            else:
                log.get().warning("claimed", rid=s.rid, account=s.account)
                del self._waiting[s.rid]
                self._arrived(s.rid)
                return

    def _arrived(self, rid: str) -> None:
        self._spill.done(rid)
        if not self._waiting and not self._kept:
            self._empty.set()

    async def _spill_loop(self) -> None:
        while True:
            await asyncio.sleep(SPILL_AFTER_S / 2)
            metrics.SETTLES_RETAINED.set(len(self._waiting) + len(self._kept))
            late = time.monotonic() - SPILL_AFTER_S
            due = [s for s, since in self._waiting.values() if since < late]
            due += [s for s, _, _ in self._kept.values()]
            due = [s for s in due if not self._spill.holds(s.rid)]
            if due:
                # On this thread: a settle that arrives meanwhile must not take its line away before it is written.
                self._write(due)

    def _write(self, settlements: Iterable[Settlement]) -> None:
        batch = list(settlements)
        try:
            if batch:
                self._spill.write(batch)
        except OSError as error:
            log.get().error("spill_failed", count=len(batch), exc=error)

    async def _adopt_loop(self) -> None:
        while True:
            for settlement in self._spill.adopt():
                log.get().warning("adopted", rid=settlement.rid, account=settlement.account)
                self.put(settlement)
            await asyncio.sleep(ADOPT_EVERY_S)

    async def _barrier_loop(self) -> None:
        while True:
            await asyncio.sleep(BARRIER_EVERY_S)
            groups: dict[object, str] = {}
            for s, _, _ in self._kept.values():
                groups.setdefault(self._redis.server_of(keyspace.meta(s.partition)), s.partition)
            await asyncio.gather(*(self._barrier(server, partition) for server, partition in groups.items()))

    async def _barrier(self, server: object, partition: str) -> None:
        """Forget what a server has passed on; settle again what another server, now gone, had acknowledged."""
        began = time.monotonic()
        key = keyspace.meta(partition)
        wait_ms = int(BARRIER_EVERY_S * 5000)
        words = (("EVAL", scripts.BARRIER.text, 1, key), ("WAIT", self._replicas, wait_ms))
        with contextlib.suppress(StoreUnavailable, ResponseError):
            (name,), reached = await self._barriers.together(key, *words)
            for rid, (s, acked_by, acked_at) in tuple(self._kept.items()):
                if acked_at >= began or self._redis.server_of(keyspace.meta(s.partition)) != server:
                    continue
                if acked_by != name.decode():
                    del self._kept[rid]
                    self.put(s, counted=True)
                elif reached >= self._replicas:
                    del self._kept[rid]
                    self._arrived(rid)


class _Counters:
    """Of requests that end alike: what adds to each of their metrics, so that a request looks them up once."""

    def __init__(self, asked: tuple[str, str, str, str], provider: str, model: str) -> None:
        self.requests = tally.adder(metrics.REQUESTS, *asked)
        self.charge = tally.adder(metrics.CHARGE_NANOS, provider, model)
        self._tokens: dict[str, Callable[[float], None]] = {}
        self._served = (provider, model)

    def tokens(self, bucket: str) -> Callable[[float], None]:
        found = self._tokens.get(bucket)
        if found is None:
            found = self._tokens[bucket] = tally.adder(metrics.TOKENS, *self._served, bucket)
        return found


_counters: Final = lru_cache(maxsize=4_096)(_Counters)


def count(s: Settlement, ended: Ended) -> None:
    """What the metrics say of a request that has ended."""
    f = s.facts
    provider, model = f.provider or metrics.OTHER, f.fallback_model or f.model
    counters = _counters((f.dialect, f.endpoint, f.model, f.outcome), provider, model)
    counters.requests(1)
    if s.void:
        return
    counters.charge(ended.charge_nanos)
    for bucket, number in f.usage.items():
        if isinstance(number, int):
            counters.tokens(bucket)(number)
    if f.estimated:
        tally.count(metrics.ESTIMATED, provider)
    if ended.shortfall_nanos:
        tally.count(metrics.SHORTFALL_NANOS, by=ended.shortfall_nanos)
        log.get().warning("shortfall", rid=s.rid, account=s.account, model=f.model)
