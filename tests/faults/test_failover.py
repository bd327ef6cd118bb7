"""T13: three upstreams of one model, of which one fails in every way in turn. Callers do not notice, and pay once."""

import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.provider import Behaviour, ScriptedProvider
from tests.faults import site_oracle
from tests.faults.http_callers import Callers
from tests.faults.options import Tally, asked
from tests.faults.servers import Kind, MongoServer, RedisServer, started
from tests.faults.site import Running, running
from tests.stack import PRICE, eventually

PHASE_REQUESTS = asked(full=30_000, short=300)  # a minute at 500 requests/s
REQUESTS_PER_S = 500
USUAL_S, SLOW_S = 0.01, 0.1
FIRST_BYTE_WITHIN_S = 0.5
WAYS = {
    "usual": Behaviour(first_byte_delay_s=USUAL_S),
    "dead": None,
    "stalled": Behaviour(gate=True),
    "slow": Behaviour(first_byte_delay_s=SLOW_S),
    "429": Behaviour(status=429),
    "500": Behaviour(status=500),
}


class Timed(Callers):
    """Callers who keep how long each answer took."""

    def __init__(self, here: Running, random: Any) -> None:
        super().__init__(here, random, count=32)
        self.took: list[float] = []

    async def post(self, line: Any, path: str, body: bytes, **headers: str) -> tuple[int, Any, Any]:
        began = time.perf_counter()
        found = await super().post(line, path, body, **headers)
        self.took.append(time.perf_counter() - began)
        return found


def p99_ms(took: list[float]) -> float:
    return round(1000 * sorted(took)[int(len(took) * 0.99)], 1)


async def test_t13_failover(tally: Tally, tmp_path: Path, valkey_kind: Kind) -> None:
    redis, mongod = RedisServer(valkey_kind, tmp_path / "redis"), MongoServer(tmp_path / "mongod")
    async with AsyncExitStack() as stack:
        providers = [await stack.enter_async_context(ScriptedProvider(WAYS["usual"])) for _ in range(3)]
        await stack.enter_async_context(started(redis, mongod))
        here = await stack.enter_async_context(running(tmp_path / "weir", redis.url, mongod.url, providers[0].url))
        here.model = await _pool(here, providers)
        callers = Timed(here, tally.random)
        rates: dict[str, float] = {}
        async with callers.running():
            for number, (way, behaviour) in enumerate(WAYS.items()):
                victim = providers[number % 3]
                await _fail(victim, behaviour)
                rates[way] = await _phase(tally, callers, way)
                await _mend(victim)
        tally.note(
            p99_ratio=round(max(tally.counts[f"{way}_p99_ms"] for way in WAYS) / tally.counts["usual_p99_ms"], 2)
        )
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


async def _mend(victim: ScriptedProvider) -> None:
    """It is well again; what it held back is let go."""
    usual = WAYS["usual"]
    assert usual is not None
    victim.script(usual)
    victim.release()
    try:
        await victim.start()
    except OSError:  # it never stopped
        return


async def _phase(tally: Tally, callers: Timed, way: str) -> float:
    """So many requests; the rate that was reached."""
    callers.took.clear()
    before: Counter[int] = Counter(callers.statuses)
    began = time.monotonic()

    async def answered() -> int:
        return sum(callers.statuses.values()) - sum(before.values())

    await eventually(answered, lambda count: count >= PHASE_REQUESTS, seconds=600)
    failed = {status: n - before[status] for status, n in callers.statuses.items() if status != 200}
    rate = round(PHASE_REQUESTS / (time.monotonic() - began), 1)
    tally.note(**{f"{way}_p99_ms": p99_ms(callers.took), f"{way}_failed": sum(failed.values())})
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
