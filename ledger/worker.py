"""The ledger worker: holds the lease, opens partitions, moves events, sweeps, and completes what was left pending.

It is on the availability path (only it opens partitions), so run two: the second waits for the lease.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from pymongo.errors import PyMongoError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ledger import claims, debits, keyspace, log, metrics, publish, reopen, statements, sweeper
from ledger.auditor import Auditor
from ledger.cold import ColdBook, now
from ledger.consumer import Consumer
from ledger.hot import Fenced
from ledger.lease import Lease
from ledger.link import Caller, StoreUnavailable
from ledger.survey import shares

_PASSING = (PyMongoError, RedisError, StoreUnavailable, Fenced, reopen.Superseded, OSError, TimeoutError)
_LEASE_EVERY_S = 2.0
# A batch costs both servers a write to disk, however few events it has, and the callers wait for the same disk.
_GATHER_S = 0.1
_ENOUGH = 1_000
_LOOK_EVERY_S = 0.25
_SWEEP_EVERY_S = 1.0
_PENDING_EVERY_S = 1.0
_STATE_EVERY_S = 5.0
_AUDIT_EVERY_S = 60.0


class Worker:
    """The loops of one process; `run` ends when `stop` is set, after the batch in hand."""

    def __init__(self, cold: ColdBook, link: Caller, reader: Redis | None, *, on_ready: Callable[[], None]) -> None:
        self._cold = cold
        self._link = link
        self._lease = Lease(cold)
        self._consumer = Consumer(cold, link, reader)
        self._auditor = Auditor(cold, link)
        self._shares = itertools.cycle(shares())
        self._stated_up_to = ""
        self._on_ready = on_ready
        self._ready = False
        self._leads = asyncio.Event()
        self._open = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Run every loop until stopped. The order of the end: stop reading, finish the batch, let the lease go."""
        loops = [
            self._every(_LEASE_EVERY_S, self._hold_lease),
            self._every(_LOOK_EVERY_S, self._look_after_partitions),
            self._every(0, self._move_events),
            self._every(_SWEEP_EVERY_S, self._sweep),
            self._every(_PENDING_EVERY_S, self._complete),
            self._every(_STATE_EVERY_S, self._state),
            self._every(_AUDIT_EVERY_S, self._audit),
        ]
        await asyncio.gather(*loops)
        with contextlib.suppress(*_PASSING):
            await self._lease.release()

    async def _every(self, seconds: float, step: Callable[[], Awaitable[Any]]) -> None:
        """Run a step again and again; a fault that may pass is logged and tried again, any other ends the process."""
        faults = 0
        while not self._stopping.is_set():
            try:
                await step()
                faults = 0
            except _PASSING as error:
                faults += 1
                if faults in (1, 10, 100):
                    log.get().warning("retrying", step=step.__name__.strip("_"), attempts=faults, exc=error)
            pause = max(seconds, min(0.05 * 2**faults, 2.0) if faults else 0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause or 0.001)

    async def _hold_lease(self) -> None:
        held = False
        try:
            held = await self._lease.hold()
        finally:
            if held and not self._leads.is_set():
                log.get().info("leading", term=self._lease.term)
                self._stated_up_to = ""
                self._auditor.forget()
                self._leads.set()
            elif not held:
                self._leads.clear()
                self._open.clear()

    async def _look_after_partitions(self) -> None:
        if not self._leads.is_set():
            # One that stands by is ready as soon as another looks after all of them.
            if not self._ready and not await reopen.closed_partitions(self._link):
                self._tell_ready()
            return
        # What closes partitions, a server that starts or is emptied, closes every share of them; anything else is found
        # when its share has its turn.
        if self._open.is_set() and not await reopen.closed_partitions(self._link, next(self._shares)):
            return
        closed = await reopen.closed_partitions(self._link)
        if not closed:
            if not self._open.is_set():
                self._open.set()
                self._tell_ready()
            return
        self._open.clear()
        try:
            async with (
                self._consumer.writing
            ):  # a batch that arrives half-way would be summed up and adopted, or neither
                report = await reopen.reopen(self._cold, self._link, closed, term=self._lease.term)
        except reopen.Refused as refusal:
            log.get().error("not_opened", where=str(refusal))
            await asyncio.sleep(2)
            return
        metrics.REOPENED.inc(report.partitions)
        log.get().info("opened", count=report.partitions, seq=report.adopted, term=self._lease.term)

    def _tell_ready(self) -> None:
        """Once, however often partitions have to be opened again."""
        if not self._ready:
            self._ready = True
            self._on_ready()

    async def _move_events(self) -> None:
        if not await self._is_open():
            return
        began = time.monotonic()
        if 0 < await self._consumer.step() < _ENOUGH and not self._consumer.behind:
            await asyncio.sleep(max(_GATHER_S - (time.monotonic() - began), 0))

    async def _sweep(self) -> None:
        """Without the lease too: holds must be freed while MongoDB is away, and the script sees to it that it is once."""
        with contextlib.suppress(Fenced):
            await sweeper.sweep(self._link)
        await sweeper.measure(self._link)

    async def _state(self) -> None:
        """Seal and state the days that are over; a few reads of MongoDB a day, once all is done."""
        at = now()
        yesterday = (at - timedelta(days=1)).strftime("%Y-%m-%d")
        if yesterday <= self._stated_up_to or not await self._is_open():
            return
        todo = [*keyspace.PARTITIONS]
        done = await statements.close_days(self._cold, self._link, now=at, partitions=todo, opened=self._opened_day)
        if len(done) == len(todo):
            self._stated_up_to = yesterday

    async def _opened_day(self, partition: str, day: str) -> None:
        """From now on the consumer dates nothing before this day; the batch in hand is written first."""
        self._consumer.open_days[partition] = day
        async with self._consumer.writing:
            pass

    async def _audit(self) -> None:
        if await self._is_open():
            await self._auditor.step()

    async def _complete(self) -> None:
        if await self._is_open():
            await publish.complete_pending(self._cold, self._link)
            await debits.complete(self._cold, self._link)
            await claims.judge(self._cold, self._link)
            metrics.DEAD_EVENTS.set(await self._cold.dead_events.estimated_document_count())

    async def _is_open(self) -> bool:
        """Whether partitions are open and ours; waits a little if not, so that callers need no pause of their own."""
        if not self._open.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._open.wait(), 0.1)
        return self._open.is_set()
