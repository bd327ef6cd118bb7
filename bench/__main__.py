"""`python -m bench`: Weir beside its peers on loopback, as ratios in one run, with an audit of the bill at the end."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from bench import plan, report, results
from bench.arena import Arena, opened
from bench.audit import audit
from bench.contest import Measure
from bench.machine import CannotRunError, ensure_tools, many_files, two_cores
from bench.plan import Scenario


def main() -> int:
    options = _options()
    # What was started is stopped on the way out of its block, so leave by that way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scenarios = plan.QUICK if options.quick else plan.FULL
    chosen = [one for one in scenarios if not options.only or one.name in options.only]
    try:
        ensure_tools()
        many_files()
        cores = two_cores()
        with TemporaryDirectory(prefix="weir-bench-") as folder:
            found = _run(Path(folder), cores, chosen, options.peers)
    except (CannotRunError, httpx2.HTTPError) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(report.text(found))
    print(f"\nwritten to {results.save(found)}")
    return 1 if found.audit is not None and found.audit.problems else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 3 minutes; the figures are rougher")
    parser.add_argument("--only", action="append", help="a scenario, such as 'stream'; may be repeated")
    parser.add_argument("--peers", nargs="*", choices=plan.ALL_PEERS, default=plan.ALL_PEERS, help="beside Weir")
    return parser.parse_args()


def _run(folder: Path, cores: tuple[int, int], scenarios: Sequence[Scenario], peers: Sequence[str]) -> results.Results:
    began = time.monotonic()
    with opened(folder, cores, list(peers)) as arena:
        versions = {name: one.version for name, one in arena.contestants.items() if one.version}
        found = results.new(versions)
        found.measures += arena.started
        for scenario in scenarios:
            found.measures += _rounds(arena, scenario)
        found.audit = audit(arena)
    found.minutes = (time.monotonic() - began) / 60
    return found


def _rounds(arena: Arena, scenario: Scenario) -> list[Measure]:
    """Interleaved: each contestant once a round, so that the machine's mood falls on all."""
    measures = []
    for number in range(scenario.rounds):
        print(f"bench: {scenario.name}, round {number + 1} of {scenario.rounds}", file=sys.stderr)
        for name in scenario.who(arena):
            values = scenario.measure(arena, name)
            measures.append(Measure(scenario.name, name, number, values))
    return measures


if __name__ == "__main__":
    sys.exit(main())
