"""Metrics for a hot path: noted in plain lists, handed to prometheus-client a few times a second.

In its multi-process mode every `inc` is a lock, a check of the process id and a write to a memory map: 15 % of a request's
CPU when it was done per event (docs/performance.md). One event loop, so no lock is needed here.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

FLUSH_EVERY_S = 0.1
Labels = tuple[str, ...]

_added: Final[dict[tuple[Counter, Labels], list[float]]] = {}
_moves: Final[dict[tuple[Gauge, Labels], list[float]]] = {}
_levels: Final[dict[tuple[Gauge, Labels], float]] = {}
_seen: Final[dict[tuple[Histogram, Labels], list[float]]] = {}


def count(metric: Counter, *labels: str, by: float = 1) -> None:
    """Add to a counter."""
    _added.setdefault((metric, labels), []).append(by)


def move(metric: Gauge, *labels: str, by: float) -> None:
    """Raise or lower a gauge that counts what is open now."""
    _moves.setdefault((metric, labels), []).append(by)


def adder(metric: Counter, *labels: str) -> Callable[[float], None]:
    """`count` for what happens with every request or chunk, made once: each call is one append to a list."""
    return _added.setdefault((metric, labels), []).append


def observer(metric: Histogram, *labels: str) -> Callable[[float], None]:
    """Notes durations in seconds; made once, like an `adder`."""
    return _seen.setdefault((metric, labels), []).append


def flush() -> None:
    """Hand over everything; call it before the process ends."""
    for (counter, labels), amounts in _added.items():
        if amounts:
            _child(counter, labels).inc(sum(amounts))
            amounts.clear()
    for (gauge, labels), moves in _moves.items():
        if moves:
            level = _levels[gauge, labels] = _levels.get((gauge, labels), 0) + sum(moves)
            _child(gauge, labels).set(level)
            moves.clear()
    for (histogram, labels), values in _seen.items():
        if values:
            _observe_all(_child(histogram, labels), values)
            values.clear()


async def flush_for_ever() -> None:
    while True:
        await asyncio.sleep(FLUSH_EVERY_S)
        flush()


def _child(metric: Any, labels: Labels) -> Any:
    return metric.labels(*labels) if labels else metric


def _observe_all(child: Any, values: list[float]) -> None:
    """What `observe` does for each value, with one write a bucket (prometheus_client/metrics.py, Histogram.observe)."""
    child._sum.inc(sum(values))  # noqa: SLF001
    values.sort()
    below = 0
    for bound, bucket in zip(child._upper_bounds, child._buckets, strict=True):  # noqa: SLF001
        upto = bisect_right(values, bound, below)
        if upto > below:
            bucket.inc(upto - below)
            below = upto
