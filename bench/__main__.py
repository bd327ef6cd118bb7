"""`python -m bench`: Weir beside its peers on loopback, as ratios in one run, with an audit of the bill at the end."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import psutil

from bench import plan, report, results
from bench.arena import Arena, opened
from bench.audit import audit
from bench.contest import Measure
from bench.contestants.peers import PEERS
from bench.guard import counting
from bench.machine import VALGRIND, CannotRunError, ensure_tools, many_files, two_cores
from bench.plan import Scenario


def main() -> int:
    options = _options()
    # What was started is stopped on the way out of its block, so leave by that way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.docs is not None:
        return _into_docs(options.docs)
    scenarios = plan.QUICK if options.quick else plan.FULL
    chosen = [one for one in scenarios if not options.only or one.name in options.only]
    try:
        ensure_tools()
        many_files()
        cores = two_cores()
        with TemporaryDirectory(prefix="weir-bench-") as folder:
            found = _run(Path(folder), cores, chosen, options)
        whole = not options.quick and not options.only and len(options.peers) == len(plan.ALL_PEERS)
        more = _guard(found) if whole else []
    except (CannotRunError, httpx2.HTTPError) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(report.text(found))
    path = results.save(found)
    print(f"\nwritten to {path}")
    if whole:
        _into_docs(path)
    return 1 if more or (found.audit is not None and found.audit.problems) else 0


def _guard(found: results.Results) -> list[str]:
    """Counts the instructions of the hot paths; the names of those that take more than the baseline allows."""
    print("bench: counting instructions", file=sys.stderr)
    ensure_tools(VALGRIND, {})
    counted = counting.count()
    found.instructions = counted.instructions
    lines, more = counting.compared(counted)
    print("\n".join(lines), file=sys.stderr)
    return more


def _into_docs(path: Path) -> int:
    """The table between its marks in docs/performance.md, and the charts beside it."""
    try:
        print(f"written to {report.into_docs(results.load(path))}")
    except (OSError, ValueError) as problem:
        print(f"bench: {path} is not a saved run: {problem}", file=sys.stderr)
        return 2
    environment = {**os.environ, "PYTHONPATH": str(PEERS / "tools")}
    charts = [sys.executable, "-m", "bench.charts", str(path), str(report.DOCS / "charts")]
    return subprocess.run(charts, env=environment, check=False).returncode


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 3 minutes; the figures are rougher")
    parser.add_argument("--only", action="append", help="a scenario, such as 'stream'; may be repeated")
    parser.add_argument(
        "--docs", type=Path, metavar="RESULTS", help="measure nothing: write docs from a saved full run"
    )
    parser.add_argument("--peers", nargs="*", choices=plan.ALL_PEERS, default=plan.ALL_PEERS, help="beside Weir")
    return parser.parse_args()


def _run(
    folder: Path, cores: tuple[int, int], scenarios: Sequence[Scenario], options: argparse.Namespace
) -> results.Results:
    began, load = time.monotonic(), os.getloadavg()[0]
    with opened(folder, cores, list(options.peers)) as arena:
        versions = {name: one.version for name, one in arena.contestants.items() if one.version}
        found = results.new(versions, "make bench-quick" if options.quick else "make bench", load)
        found.measures += arena.started
        for scenario in scenarios:
            _rounds(arena, scenario, found)
        found.audit = audit(arena)
    found.minutes = (time.monotonic() - began) / 60
    return found


def _rounds(arena: Arena, scenario: Scenario, found: results.Results) -> None:
    """Interleaved: each contestant once a round, so that the machine's mood falls on all."""
    before = len({measure.round for measure in found.measures if measure.scenario == scenario.name})
    for number in range(before, before + scenario.rounds):
        print(f"bench: {scenario.name}, round {number + 1}", file=sys.stderr)
        for name in scenario.who(arena):
            try:
                values = scenario.measure(arena, name)
            except (CannotRunError, psutil.NoSuchProcess) as problem:
                if name not in plan.ALL_PEERS:
                    raise CannotRunError(f"{scenario.name}, {name}: {problem}") from None
                # A peer that fails under load is a result too.
                found.failures.append(f"{scenario.name}, round {number + 1}, {name}: {problem}")
                print(f"bench: {found.failures[-1]}", file=sys.stderr)
                continue
            found.measures.append(Measure(scenario.name, name, number, values))


if __name__ == "__main__":
    sys.exit(main())
