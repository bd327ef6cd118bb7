"""Callers that never stop: admit, sometimes report, settle or void, with the same id until somebody answers.

They do what the gateway does (`admission`, `settler`), and write down what each reply said. That record is the oracle:
it shares no code with either book.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from ledger import facts, hot, keyspace, request_id
from ledger.facts import Facts
from ledger.hot import Admitted, Ended, Fenced, Offer, Place
from ledger.link import Link, StoreUnavailable
from ledger.settlement import Settlement
from tests.faults.customers import Customer

T = TypeVar("T")
HOLD = 1_000_000
_RETRY_S = (0.01, 0.02, 0.05, 0.1, 0.1)


@dataclass
class Record:
    """One request as its caller knows it. `paid` is what it costs; None for one that was voided."""

    place: Place
    admitted: bool
    paid: int | None
    end: str
    said_nanos: int
    admitted_us: int


class Load:
    """So many callers at once on these links; `records` has every request whose end was acknowledged."""

    def __init__(
        self, links: list[Link], customers: list[Customer], random: Random, *, callers: int = 48, pace_s: float = 0.04
    ) -> None:
        self.records: dict[str, Record] = {}
        self.counts: Counter[str] = Counter()
        self.unanswered = 0  # calls that a server has not answered at this moment
        self.failed: set[str] = set()  # requests of which at least one call was not answered
        self.seconds = 0.0
        self._links = links
        self._customers = customers
        self._random = random
        self._callers = callers
        self._pace_s = pace_s
        self._stopping = False
        self._admitted = asyncio.Event()
        self._asked = (
            0  # how often somebody asked for an admit: an answer to an earlier call is none to a later question
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Load for as long as the block; on leaving it, every request that began is brought to its end."""
        self._stopping = False
        loop = asyncio.get_running_loop()
        began = loop.time()
        callers = [asyncio.create_task(self._call(n)) for n in range(self._callers)]
        try:
            yield self
        finally:
            self._stopping = True
            done, late = await asyncio.wait(callers, timeout=60)
            self.seconds += loop.time() - began
            for caller in late:
                caller.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for caller in done:
            caller.result()
        assert not late, f"{len(late)} requests were not settled within 60 s"

    async def admits(self, *, within_s: float = 20) -> None:
        """Until a request that asks from now on is admitted."""
        self._asked += 1
        self._admitted.clear()
        await asyncio.wait_for(self._admitted.wait(), within_s)

    async def waits(self) -> bool:
        """Until a call waits for its answer, so that what is done to its server now hits it; False if none comes."""
        for _ in range(200):
            if self.unanswered:
                return True
            await asyncio.sleep(0.001)
        return False

    @property
    def scripts_per_s(self) -> float:
        return round(self.counts["scripts"] / max(self.seconds, 0.001), 1)

    async def settle_all(self, customer: Customer, rids: list[str]) -> list[tuple[str, Record]]:
        """End what somebody else was admitted with, each at its own price."""

        async def one(number: int, rid: str) -> tuple[str, Record]:
            link, cost = self._links[number % len(self._links)], self._random.randrange(HOLD)
            at_us = request_id.began_ms(rid) * 1000
            ended = await self._settle(link, customer.place, rid, cost, at_us)
            return rid, Record(customer.place, True, cost, ended.end, ended.charge_nanos, at_us)

        return list(await asyncio.gather(*(one(number, rid) for number, rid in enumerate(rids))))

    async def resubmit(self, rids: list[str]) -> Counter[str]:
        """Say again what was acknowledged, as a gateway does that keeps its settles until a barrier has passed them."""
        ends: Counter[str] = Counter()
        link = self._links[0]
        for start in range(0, len(rids), 200):
            part = rids[start : start + 200]
            for ended in await asyncio.gather(*(self._settle_again(link, rid) for rid in part)):
                ends[ended.end] += 1
        return ends

    async def _settle_again(self, link: Link, rid: str) -> Ended:
        record = self.records[rid]
        return await self._settle(link, record.place, rid, record.paid, record.admitted_us)

    async def _call(self, number: int) -> None:
        link = self._links[number % len(self._links)]
        while not self._stopping:
            await self._request(link, self._random.choice(self._customers))

    async def _request(self, link: Link, customer: Customer) -> None:
        rid = request_id.new()
        admitted = await self._admit(link, customer, rid)
        if admitted == "refused":
            self.counts["refused"] += 1
            await asyncio.sleep(0.02)
            return
        self.counts["requests"] += 1
        at_us = request_id.began_ms(rid) * 1000
        cost: int | None = None
        if isinstance(admitted, Admitted):
            at_us = admitted.at_us
            await asyncio.sleep(self._random.uniform(0, 2 * self._pace_s))
            cost = self._random.randrange(HOLD * 6 // 5) if self._random.random() < 0.9 else None
            if cost is not None and self._random.random() < 0.2:
                await self._report(link, customer.place, rid, self._random.randrange(cost + 1))
        ended = await self._settle(link, customer.place, rid, cost, at_us)
        record = Record(customer.place, isinstance(admitted, Admitted), cost, ended.end, ended.charge_nanos, at_us)
        self.records[rid] = record

    async def _admit(self, link: Link, customer: Customer, rid: str) -> Admitted | str:
        """As the gateway: once more if the answer was lost, then a void. A fence after a lost answer is unsure too."""
        offer = Offer([HOLD], 10, facts=_event(customer.place))
        unsure = False
        for _ in range(2):
            asked = self._asked
            try:
                reply = await self._ask(rid, lambda: hot.admit(link, customer.place, rid, customer.versions, offer))
            except StoreUnavailable:
                unsure = True
                continue
            except Fenced:
                return "unsure" if unsure else "refused"
            if isinstance(reply, Admitted):
                if asked == self._asked:
                    self._admitted.set()
                return reply
            assert reply.word in ("STALE", "REVOKED"), reply
            return "refused"
        return "unsure"

    async def _report(self, link: Link, place: Place, rid: str, used: int) -> None:
        with contextlib.suppress(StoreUnavailable, Fenced):
            await self._ask(rid, lambda: hot.progress(link, place, rid, used_nanos=used))

    async def _settle(self, link: Link, place: Place, rid: str, cost: int | None, at_us: int) -> Ended:
        event, attempt = _event(place), 0
        while True:
            try:
                reply = await self._ask(
                    rid,
                    lambda: hot.settling(
                        link, place, rid, cost_nanos=cost or 0, event=event, admitted_us=at_us, void=cost is None
                    ),
                )
                ended = hot.ended(reply)
                if not isinstance(ended, Ended):
                    return await self._claim(link, place, rid, cost, at_us)
            except (StoreUnavailable, Fenced):
                await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1
            else:
                return ended

    async def _claim(self, link: Link, place: Place, rid: str, cost: int | None, at_us: int) -> Ended:
        """As the gateway: Redis cannot tell any more whether this was posted, so the ledger asks MongoDB."""
        claim = Settlement(rid, *place, cost or 0, None, at_us, _facts(place), void=cost is None)
        await link.command("XADD", keyspace.claims(place.partition), "*", "settlement", facts.encode_any(claim))
        self.counts["claims"] += 1
        return Ended("claimed", cost or 0, 0, 0)

    async def _ask(self, rid: str, call: Callable[[], Awaitable[T]]) -> T:
        self.unanswered += 1
        try:
            answer = await call()
        except StoreUnavailable:
            self.failed.add(rid)
            raise
        finally:
            self.unanswered -= 1
        self.counts["scripts"] += 1
        return answer


def _facts(place: Place) -> Facts:
    return Facts(
        account=place.account,
        api_key=place.key,
        model="m",
        dialect="openai",
        endpoint="chat",
        price_version=1,
        streamed=False,
        outcome="complete",
    )


def _event(place: Place) -> bytes:
    return facts.encode(_facts(place))
