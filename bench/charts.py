"""Charts of a run, as PNG and SVG: `python -m bench.charts RESULTS.json FOLDER`, with matplotlib on the path.

The bench runs this as a process of its own, because matplotlib is installed for the bench alone.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import plan
from bench.arena import DIRECT
from bench.contestants.weir import NAME as WEIR
from bench.results import Results, load

_COLOURS = {WEIR: "#0b6e4f", "nginx": "#5b6770", "naive": "#c98a1b", "LiteLLM": "#b23a48", "Portkey": "#4a6fa5"}
_GREY = "#9aa3a9"
_SIZES = {plan.MAIN: 300, "10 KB prompts": 10_000, plan.LARGE: 200_000}
_CONNECTIONS = {plan.ALONE: 1, "8 connections": 8, plan.MAIN: 64, "512 connections": 512}
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "weir",  # the same drawing has the same bytes
    "svg.fonttype": "none",
}


def main(results: Path, folder: Path) -> None:
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams.update(_STYLE)
    pyplot = importlib.import_module("matplotlib.pyplot")
    found = load(results)
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in _CHARTS.items():
        figure, axes = pyplot.subplots(figsize=(7.2, 3.4))
        if draw(found, axes):
            figure.savefig(folder / f"{name}.png", dpi=130)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)


def _cpu(found: Results, axes: Any) -> bool:
    return _bars(found, axes, plan.MAIN, "cpu_us", "CPU per request at 64 connections, us")


def _chunks(found: Results, axes: Any) -> bool:
    return _bars(found, axes, plan.CHUNKS, "cpu_us", "CPU per relayed stream chunk, us")


def _bars(found: Results, axes: Any, scenario: str, value: str, title: str) -> bool:
    """One bar a contestant on a logarithmic axis, with its number and the spread of the rounds."""
    spreads = {name: found.spread(scenario, name, value) for name in found.contestants(scenario)}
    known = {name: one for name, one in spreads.items() if one is not None}
    ordered = sorted(known.items(), key=lambda pair: -pair[1].middle)
    for row, (name, one) in enumerate(ordered):
        axes.barh(row, one.middle, color=_COLOURS.get(name, _GREY), height=0.62)
        axes.plot([one.least, one.most], [row, row], color="#222222", linewidth=1)
        axes.text(one.most * 1.08, row, f"{one.middle:,.0f}", va="center")
    axes.set_yticks(range(len(ordered)), [_label(name) for name, _ in ordered])
    axes.set_xscale("log")
    axes.set_xlim(1, 4 * max(one.most for _, one in ordered) if ordered else None)
    axes.set_title(title)
    axes.margins(x=0.12)
    return bool(ordered)


def _by_connections(found: Results, axes: Any) -> bool:
    drawn = _lines(found, axes, _CONNECTIONS, "requests_per_s")
    axes.set(title="Requests a second on one core, by connections", xlabel="connections")
    return drawn


def _by_size(found: Results, axes: Any) -> bool:
    drawn = _lines(found, axes, _SIZES, "cpu_us")
    axes.set(title="CPU per request by the size of the prompt, us", xlabel="bytes")
    return drawn


def _lines(found: Results, axes: Any, scenarios: dict[str, int], value: str) -> bool:
    names = [name for name in found.contestants(plan.MAIN) if name != DIRECT]
    for name in names:
        spreads = {x: found.spread(scenario, name, value) for scenario, x in scenarios.items()}
        points = [(x, one.middle) for x, one in spreads.items() if one is not None]
        if len(points) < 2:
            continue
        xs, ys = zip(*points, strict=True)
        colour = _COLOURS.get(name, _GREY)
        axes.plot(xs, ys, marker="o", color=colour, linewidth=2.4 if name == WEIR else 1.4)
        axes.annotate(_label(name), (xs[-1], ys[-1]), (6, 0), textcoords="offset points", va="center", color=colour)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(list(scenarios.values()), [f"{x:,}" for x in scenarios.values()])
    axes.minorticks_off()
    axes.margins(x=0.14)
    return bool(axes.lines)


def _latency(found: Results, axes: Any) -> bool:
    """A dot for the median and a dot for p99, a line between."""
    scenario = "50 requests/s"
    rows = []
    for name in found.contestants(scenario):
        p50, p99 = (found.spread(scenario, name, value) for value in ("p50_ms", "p99_ms"))
        if p50 is not None and p99 is not None:
            rows.append((name, p50.middle, p99.middle))
    rows.sort(key=lambda row: -row[1])
    for row, (name, p50_ms, p99_ms) in enumerate(rows):
        colour = _COLOURS.get(name, _GREY)
        axes.plot([p50_ms, p99_ms], [row, row], color=colour, linewidth=2)
        axes.plot(p50_ms, row, marker="o", color=colour)
        axes.plot(p99_ms, row, marker="D", color=colour)
        axes.text(p99_ms * 1.15, row, f"{p50_ms:,.2f} - {p99_ms:,.1f}", va="center")
    axes.set_yticks(range(len(rows)), [_label(name) for name, _, _ in rows])
    axes.set_xscale("log")
    axes.set_title("Latency at a fixed 50 requests/s, ms: median (circle) and p99")
    axes.margins(x=0.14)
    return bool(rows)


def _label(name: str) -> str:
    return {WEIR: "Weir (metered)", DIRECT: "no proxy at all", "naive": "naive proxy"}.get(name, name)


_CHARTS: dict[str, Callable[[Results, Any], bool]] = {
    "cpu-per-request": _cpu,
    "cpu-per-chunk": _chunks,
    "by-connections": _by_connections,
    "by-prompt-size": _by_size,
    "latency-at-a-fixed-rate": _latency,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
