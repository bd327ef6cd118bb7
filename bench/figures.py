"""The figures that Weir is to reach, each from one run's measures, beside what is asked of it."""

from collections.abc import Callable, Iterator
from operator import sub, truediv
from typing import NamedTuple

from bench import plan
from bench.arena import DIRECT
from bench.contestants.weir import NAME as WEIR
from bench.results import Results, Spread


class Figure(NamedTuple):
    """One figure: how it comes about, and its bounds. `higher` says which way is better."""

    name: str
    unit: str
    of: Callable[[Results], Spread | None]
    at_least: float
    aim: float
    higher: bool = False

    def verdict(self, value: float) -> str:
        def passes(bound: float) -> bool:
            return value >= bound if self.higher else value <= bound

        return "aim reached" if passes(self.aim) else "reached" if passes(self.at_least) else "NOT reached"


def _cpu(results: Results) -> Spread | None:
    return results.between(plan.MAIN, "cpu_us", WEIR, "nginx", truediv)


def _litellm(results: Results) -> Spread | None:
    return results.between(plan.MAIN, "requests_per_s", WEIR, "LiteLLM", truediv)


def _added(value: str) -> Callable[[Results], Spread | None]:
    return lambda results: results.between(plan.ALONE, value, WEIR, DIRECT, sub)


def _chunk(results: Results) -> Spread | None:
    return results.between(plan.CHUNKS, "cpu_us", WEIR, DIRECT, truediv)


def _of(scenario: str, value: str) -> Callable[[Results], Spread | None]:
    return lambda results: results.spread(scenario, WEIR, value)


def _keys(results: Results) -> Spread | None:
    names = results.contestants(plan.MANY)
    if len(names) != 2:
        return None
    few, many = (results.spread(plan.MANY, name, "p50_ms") for name in names)
    pairs = results.between(plan.MANY, "p50_ms", names[1], names[0], truediv)
    if few is None or many is None or pairs is None:
        return None
    return pairs._replace(middle=many.middle / few.middle)


FIGURES = (
    Figure("CPU per metered request / nginx's unmetered one", "x", _cpu, 10, 6),
    Figure("requests/s on one core / LiteLLM's unmetered", "x", _litellm, 50, 100, higher=True),
    Figure("added latency at one connection, p50", "ms", _added("p50_ms"), 0.9, 0.6),
    Figure("added latency at one connection, p99", "ms", _added("p99_ms"), 2.0, 1.0),
    Figure("CPU per relayed stream chunk / a bare asyncio writer's", "x", _chunk, 2.5, 1.6),
    Figure("memory per open stream, 2,000 on one worker", "KB", _of(plan.OPEN, "kb"), 40, 20),
    Figure("idle worker, resident", "MB", _of(plan.START, "rss_mb"), 80, 55),
    Figure("Redis CPU per request, with the ledger's reading", "us", _of(plan.WITH_LEDGER, "redis_us"), 80, 55),
    Figure("Redis CPU of admit and settle, by its own statistics", "us", _of(plan.SCRIPTS, "scripts_us"), 80, 55),
    Figure(
        "events/s that one ledger worker writes to MongoDB", "", _of(plan.DRAIN, "events_per_s"), 8_000, 20_000, True
    ),
    Figure("p50 with very many keys / with 10", "x", _keys, 1.5, 1.1),
    Figure("cold start to the first metered answer", "s", _of(plan.START, "start_s"), 2, 1),
)


def found(results: Results) -> Iterator[tuple[Figure, Spread]]:
    """Those that this run measured."""
    for figure in FIGURES:
        if (value := figure.of(results)) is not None:
            yield figure, value


def carries(results: Results) -> Iterator[tuple[str, float]]:
    """What one of each carries when nothing else is the limit: from the CPU that one request, chunk or event takes."""
    for what, scenario, value in (
        ("one worker: short requests a second", plan.MAIN, "cpu_us"),
        ("one worker: requests of 200 KB a second", plan.LARGE, "cpu_us"),
        ("one worker: stream chunks a second", plan.CHUNKS, "cpu_us"),
        ("one Redis shard: requests a second", plan.MAIN, "redis_us"),
        ("one ledger worker's core: events a second", plan.DRAIN, "cpu_us"),
    ):
        if (taken := results.spread(scenario, WEIR, value)) is not None:
            yield what, 1e6 / taken.middle
