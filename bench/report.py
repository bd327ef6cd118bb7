"""What was measured, as a table for a person and as JSON for the next run."""

import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import msgspec

from bench.audit import Audit
from bench.load import CONNECTIONS, Sample

RESULTS = Path(__file__).with_name("results")


class Series(msgspec.Struct):
    """One target's samples, in the order of the rounds."""

    crowd: list[Sample] = []
    """At 64 connections."""
    alone: list[Sample] = []
    """At one."""
    stores_cpu_s: list[float] = []


class Results(msgspec.Struct):
    at: str
    machine: str
    seconds: int
    rounds: int
    series: dict[str, Series]
    audit: Audit | None = None


def new(seconds: int, rounds: int) -> Results:
    machine = f"{platform.machine()} {platform.system()} {platform.release()}, Python {platform.python_version()}"
    return Results(datetime.now(UTC).isoformat(timespec="seconds"), machine, seconds, rounds, {})


def save(results: Results) -> Path:
    RESULTS.mkdir(exist_ok=True)
    name = results.at.replace(":", "").replace("+0000", "Z")
    path = RESULTS / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    return path


def table(results: Results) -> str:
    heading = f"Medians of {results.rounds} interleaved rounds of {results.seconds} s (and half the spread)"
    columns = f"{'requests/s':>18}{'CPU/request':>19}{'busy':>7}{'p50':>10}{'p99':>10}{'':4}{'p50':>10}{'p99':>10}"
    lines = [
        f"{heading}; one core for the one under test, one for load, upstream and stores.",
        "",
        f"{'':10}{f'at {CONNECTIONS} connections':^64}{'':4}{'at one':^20}",
        f"{'':10}{columns}",
    ]
    for name, series in results.series.items():
        lines.append(f"{name:10}{_crowd(series.crowd):64}{'':4}{_alone(series.alone)}")
    lines += _ratios(results.series)
    if results.audit is not None:
        lines += _audit(results.audit)
    return "\n".join(lines)


def _crowd(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    speed, cpu = _spread(samples, lambda s: s.requests_per_s), _spread(samples, lambda s: s.cpu_us_per_request)
    return (
        f"{f'{speed[0]:,.0f} ({speed[1]:.0%})':>18}{f'{cpu[0]:.1f} us ({cpu[1]:.0%})':>19}"
        f"{median(s.busy for s in samples):>7.0%}{_ms(samples, lambda s: s.p50_us)}{_ms(samples, lambda s: s.p99_us)}"
    )


def _alone(samples: Sequence[Sample]) -> str:
    return f"{_ms(samples, lambda s: s.p50_us)}{_ms(samples, lambda s: s.p99_us)}"


def _ratios(series: dict[str, Series]) -> list[str]:
    """Ratios round by round, then their median: neighbours in time share the machine's mood."""
    floor, ours, direct = series.get("nginx"), series.get("weir"), series.get("direct")
    if floor is None or ours is None or direct is None:
        return []
    pairs = list(zip(ours.crowd, floor.crowd, strict=True))
    cpu = median(a.cpu_us_per_request / b.cpu_us_per_request for a, b in pairs)
    speed = median(b.requests_per_s / a.requests_per_s for a, b in pairs)
    ends = list(zip(ours.alone, direct.alone, strict=True))
    p50, p99 = median(a.p50_us - b.p50_us for a, b in ends), median(a.p99_us - b.p99_us for a, b in ends)
    lines = [
        "",
        f"CPU per metered request: {cpu:.1f}x nginx's unmetered one (to reach 10, aim 6); {speed:.1f}x fewer requests",
        (
            f"added latency at one connection: p50 {p50 / 1000:.2f} ms (to reach 0.9, aim 0.6),"
            f" p99 {p99 / 1000:.2f} ms (to reach 2.0, aim 1.0)"
        ),
    ]
    if ours.stores_cpu_s:
        store = median(used / one.requests * 1e6 for used, one in zip(ours.stores_cpu_s, ours.crowd, strict=True))
        lines.append(f"Redis CPU per request: {store:.0f} us (to reach 80, aim 55)")
    return lines


def _audit(audit: Audit) -> list[str]:
    ends = ", ".join(f"{count:,} {end}" for end, count in sorted(audit.events.items())) or "none"
    cost, charged = f"${audit.cost_nanos / 1e9:,.6f}", f"${audit.charged_nanos / 1e9:,.6f}"
    counts = f"audit: the upstream answered {audit.answered:,}; usage events: {ends}; cost {cost}, charged {charged}"
    verdicts = [f"audit: DIFFERS: {problem}" for problem in audit.problems]
    return ["", counts, *(verdicts or ["audit: the books agree to the nano-dollar"])]


def _spread(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> tuple[float, float]:
    """The median, and half the distance from least to most as a share of it."""
    values = [figure(sample) for sample in samples]
    middle = median(values)
    return middle, (max(values) - min(values)) / 2 / middle if middle else 0.0


def _ms(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> str:
    return f"{f'{median(map(figure, samples)) / 1000:.2f} ms':>10}"
