"""T13: three upstreams of one model, of which one fails in every way in turn. Callers do not notice, and pay once."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from bench.provider import Behaviour, ScriptedProvider
from tests.faults import site_oracle
from tests.faults.http_callers import Callers
from tests.faults.options import Tally, asked
from tests.faults.servers import Kind, MongoServer, RedisServer, started
from tests.faults.site import Running, running
from tests.stack import PRICE, eventually

PHASE_REQUESTS = asked(full=30_000, short=300)  # a minute at 500 requests/s
REQUESTS_PER_S = 500
OFFERED_PER_S = 510  # a little more, so that what is asked for can be reached
CALLERS = 160  # that no request waits for a caller to be free
LATE_S = 0.02  # what is later than that is let go: a burst to catch up would measure itself
NAMED = "openai-version"
USUAL_S, SLOW_S = 0.01, 0.1
FIRST_BYTE_WITHIN_S = (
    asked(full=500, short=2_000) / 1_000
)  # beside other tests half a second is no sign of a dead upstream
USUAL = Behaviour(first_byte_delay_s=USUAL_S)
WAYS = {
    "usual": USUAL,
    "dead": None,
    "stalled": Behaviour(gate=True),
    "slow": Behaviour(first_byte_delay_s=SLOW_S),
    "429": Behaviour(status=429),
    "500": Behaviour(status=500),
}


class Timed(Callers):
    """An open loop: requests begin at their times, whatever became of the ones before. Of each answer: how long it took,
    and how much of that the gateway added to what the provider who served it took.
    """

    def __init__(self, here: Running, random: Any, providers: list[ScriptedProvider]) -> None:
        super().__init__(here, random, count=CALLERS)
        self.took: list[float] = []
        self.added: list[float] = []
        self._providers = {str(number): provider for number, provider in enumerate(providers)}
        self._next = time.monotonic()

    async def post(self, line: Any, path: str, body: bytes, **headers: str) -> tuple[int, Any, Any]:
        now = time.monotonic()
        begin = self._next = max(self._next + 1 / OFFERED_PER_S, now - LATE_S)
        await asyncio.sleep(begin - now)
        began = time.monotonic()
        status, found, text = await super().post(line, path, body, **headers)
        took = time.monotonic() - began
        self.took.append(took)
        if status == 200:
            self.added.append(took - self._provider_s(found))
        return status, found, text

    def _provider_s(self, headers: dict[str, str]) -> float:
        """How long it took the provider who says in the answer which one it is, and which of its requests this was."""
        seen, number = self._providers[headers[NAMED]].seen, int(headers["x-request-id"].removeprefix("req_"))
        served = seen[number - seen[-1].number - 1]
        assert served.number == number
        return served.ended_s - served.arrived_s


def p99_ms(took: list[float]) -> float:
    return round(1000 * sorted(took)[int(len(took) * 0.99)], 1)


def named(number: int, behaviour: Behaviour) -> Behaviour:
    """The same, and its answers say which provider it was, in a header that passes."""
    return msgspec.structs.replace(behaviour, headers={**behaviour.headers, NAMED: str(number)})


async def test_t13_failover(tally: Tally, tmp_path: Path, valkey_kind: Kind) -> None:
    redis, mongod = RedisServer(valkey_kind, tmp_path / "redis"), MongoServer(tmp_path / "mongod")
    async with AsyncExitStack() as stack:
        usual = [named(number, USUAL) for number in range(3)]
        providers = [await stack.enter_async_context(ScriptedProvider(behaviour)) for behaviour in usual]
        await stack.enter_async_context(started(redis, mongod))
        here = await stack.enter_async_context(running(tmp_path / "weir", redis.url, mongod.url, providers[0].url))
        here.model = await _pool(here, providers)
        callers = Timed(here, tally.random, providers)
        rates: dict[str, float] = {}
        async with callers.running():
            for number, (way, behaviour) in enumerate(WAYS.items()):
                victim = number % 3
                await _fail(providers[victim], behaviour and named(victim, behaviour))
                rates[way] = await _phase(tally, callers, way)
                await _mend(providers[victim], usual[victim])
        usually = tally.counts["usual_added_p99_ms"]
        tally.note(added_p99_ratio=round(max(tally.counts[f"{way}_added_p99_ms"] for way in WAYS) / usually, 2))
        tally.at_most_seconds(added_p99_ratio=2)
        tally.note(failovers_rate=min(rates.values()))
        asked_for = sum(callers.statuses.values())
        tally.note(requests=asked_for, good_percent=round(100 * callers.statuses[200] / asked_for, 3))
        tally.at_least(good_percent=99.9, requests=PHASE_REQUESTS * len(WAYS))
        tally.at_least_rate(failovers_rate=REQUESTS_PER_S)
        await _conclude(tally, here, callers, providers)
    tally.check()


async def _pool(here: Running, providers: list[ScriptedProvider]) -> str:
    targets = []
    for number, provider in enumerate(providers):
        body = {
            "name": f"pool-{number}",
            "provider": "openai",
            "base_url": f"{provider.url}/v1",
            "credential": f"sk-{number}",
        }
        await here.site.ask("POST", "/upstreams", {**body, "first_byte_timeout_s": FIRST_BYTE_WITHIN_S})
        targets.append({"upstream": f"pool-{number}", "model": "m"})
    form = {"upstreams": targets, "price": PRICE, "max_output_tokens": 4096, "max_input_tokens": 128_000}
    await here.site.ask("PUT", "/models/pooled", form)
    return "pooled"


async def _fail(victim: ScriptedProvider, behaviour: Behaviour | None) -> None:
    if behaviour is None:
        await victim.stop()
    else:
        victim.script(behaviour)


async def _mend(victim: ScriptedProvider, usual: Behaviour) -> None:
    """It is well again; what it held back is let go."""
    victim.script(usual)
    victim.release()
    try:
        await victim.start()
    except OSError:  # it never stopped
        return


async def _phase(tally: Tally, callers: Timed, way: str) -> float:
    """So many requests; the rate that was reached."""
    callers.took.clear()
    callers.added.clear()
    before: Counter[int] = Counter(callers.statuses)
    began = time.monotonic()

    async def answered() -> int:
        return sum(callers.statuses.values()) - sum(before.values())

    await eventually(answered, lambda count: count >= PHASE_REQUESTS, seconds=600)
    failed = {status: n - before[status] for status, n in callers.statuses.items() if status != 200}
    rate = round(PHASE_REQUESTS / (time.monotonic() - began), 1)
    p99s = {f"{way}_p99_ms": p99_ms(callers.took), f"{way}_added_p99_ms": p99_ms(callers.added)}
    tally.note(**p99s, **{f"{way}_failed": sum(failed.values())})
    return rate


async def _conclude(tally: Tally, here: Running, callers: Timed, providers: list[ScriptedProvider]) -> None:
    """Nothing held a moment later; every answer charged once, and no more charged than providers billed."""
    began = time.monotonic()
    await eventually(lambda: here.site.balance(here.customer.id), lambda b: b["held_nanos"] == 0, seconds=30)
    tally.note(holds_back_s=round(time.monotonic() - began, 2))
    tally.at_most_seconds(holds_back_s=5)
    stats = [provider.stats for provider in providers]
    billed = SimpleNamespace(
        billed_prompt_tokens=sum(each.billed_prompt_tokens for each in stats),
        billed_completion_tokens=sum(each.billed_completion_tokens for each in stats),
        billed_requests=sum(each.billed_requests for each in stats),
    )
    everyone: Any = SimpleNamespace(stats=billed)
    # A provider that answered too late may have billed its operator, but never the caller: so at most what was billed.
    await site_oracle.conclude(tally, here, callers, everyone, died=True)
    tally.at_most(abandoned=0)
