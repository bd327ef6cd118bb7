"""The results as tables: for the terminal, and between two marks of docs/performance.md."""

from collections.abc import Sequence
from pathlib import Path

from bench import figures
from bench.audit import Audit
from bench.results import Results, Spread

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- bench: from here -->", "<!-- bench: to here -->"
_COLUMNS = {
    "requests_per_s": "requests/s",
    "events": "events",
    "events_per_s": "events/s",
    "chunks": "chunks",
    "cpu_us": "CPU us each",
    "scripts_us": "scripts us each",
    "redis_us": "Redis us each",
    "busy": "core busy",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "max_ms": "max ms",
    "late_p99_ms": "sender late p99 ms",
    "first_ms": "first chunk ms",
    "behind_s": "behind s",
    "start_s": "start s",
    "kb": "KB a stream",
    "rss_mb": "resident MB",
    "redis_rss_mb": "Redis MB",
}


def text(results: Results) -> str:
    """Everything, in Markdown that a terminal shows well too."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    run = (
        f"`{results.command}`, {results.at[:10]}, {results.machine}; {versions}. {results.minutes:.0f} minutes in all; the"
        f" machine's load average before it was {results.load:.1f}."
    )
    parts = [
        run,
        _figures(results),
        f"**what one of each carries** (a core's second, divided by what one takes)\n\n{_carries(results)}",
        *(f"**{scenario}**\n\n{_scenario(results, scenario)}" for scenario in results.scenarios()),
    ]
    if results.failures:
        parts.append("Runs without a measure:\n\n" + "\n".join(f"- {failure}" for failure in results.failures))
    if results.instructions:
        rows = [(name, f"{count:,}") for name, count in results.instructions.items()]
        parts.append(f"**instructions, by callgrind**\n\n{_table(('', 'instructions each'), rows)}")
    if results.audit is not None:
        parts.append(_audit(results.audit))
    return "\n\n".join(parts)


def into_docs(results: Results) -> Path:
    """Rewrites what lies between the marks."""
    path = DOCS / "performance.md"
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no place for the table, between {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text(results)}\n\n{END}{after}")
    return path


def _figures(results: Results) -> str:
    rows = [
        (figure.name, _range(value, figure.unit), _bound(figure, figure.at_least), _bound(figure, figure.aim), verdict)
        for figure, value in figures.found(results)
        for verdict in [figure.verdict(value.middle)]
    ]
    return _table(("figure", "median (least - most)", "to reach", "aim", ""), rows)


def _carries(results: Results) -> str:
    return _table(("", "each second"), [(what, _number(count)) for what, count in figures.carries(results)])


def _bound(figure: figures.Figure, value: float) -> str:
    return f"{'>=' if figure.higher else '<='} {_number(value)} {figure.unit}".rstrip()


def _scenario(results: Results, scenario: str) -> str:
    names = results.contestants(scenario)
    columns = [value for value in _COLUMNS if any(results.rounds(scenario, name, value) for name in names)]
    rows = [(name, *(_cell(results.spread(scenario, name, value)) for value in columns)) for name in names]
    return _table(("", *(_COLUMNS[value] for value in columns)), rows)


def _cell(value: Spread | None) -> str:
    if value is None:
        return ""
    wide = (value.most - value.least) / 2 / value.middle if value.middle else 0.0
    return f"{_number(value.middle)} ({wide:.0%})" if value.most > value.least else _number(value.middle)


def _range(value: Spread, unit: str) -> str:
    low, high = _number(value.least), _number(value.most)
    return f"{_number(value.middle)} {unit}".rstrip() + (f" ({low} - {high})" if low != high else "")


def _number(value: float) -> str:
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(heading, *rows, strict=True)]
    lines = [heading, ["-" * max(width, 3) for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _audit(audit: Audit) -> str:
    ends = ", ".join(f"{count:,} {end}" for end, count in sorted(audit.events.items())) or "none"
    cost, charged = f"${audit.cost_nanos / 1e9:,.6f}", f"${audit.charged_nanos / 1e9:,.6f}"
    line = (
        f"Audit: the upstreams answered {audit.answered:,} of Weir's requests, {audit.streams:,} of them streams; usage"
        f" events: {ends}; they cost {cost}, charged were {charged}."
    )
    verdicts = [f"DIFFERS: {problem}." for problem in audit.problems]
    return " ".join([line, *(verdicts or ["The books agree to the nano-dollar."])])
