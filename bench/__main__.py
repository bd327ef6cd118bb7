"""`python -m bench`: Weir and nginx side by side on loopback, as ratios in one run, and an audit of the bill."""

import argparse
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import httpx2

from bench import load, nginx, report
from bench.audit import audit
from bench.load import CONNECTIONS, Target
from bench.machine import CannotRunError, cpu_s, ensure_tools, pin, two_cores
from bench.stack import Stack, weir


class Plan(NamedTuple):
    rounds: int
    seconds: int
    alone_seconds: int


DEFAULT = Plan(rounds=4, seconds=6, alone_seconds=3)
QUICK = Plan(rounds=2, seconds=3, alone_seconds=1)
WARM_UP_S = 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute; the figures are rougher")
    parser.add_argument("--floor", action="store_true", help="nginx alone, without Weir")
    options = parser.parse_args()
    plan = QUICK if options.quick else DEFAULT
    # What was started is stopped on the way out of its block, so leave by that way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        ensure_tools()
        core, _ = two_cores()
        with TemporaryDirectory(prefix="weir-bench-") as folder:
            results = _compare(plan, Path(folder), core, floor_only=options.floor)
    except (CannotRunError, httpx2.HTTPError) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(report.table(results))
    print(f"\nwritten to {report.save(results)}")
    return 1 if results.audit is not None and results.audit.problems else 0


def _compare(plan: Plan, folder: Path, core: int, *, floor_only: bool) -> report.Results:
    with ExitStack() as running:
        direct = running.enter_context(nginx.upstream(folder, "direct"))
        proxy = running.enter_context(nginx.proxy(folder, direct))
        targets = [Target("direct", direct.url), Target("nginx", proxy.url, [proxy.process])]
        stack, answered = None, None
        if not floor_only:
            # An upstream of its own, so that it counts Weir's requests and no others.
            behind = running.enter_context(nginx.upstream(folder, "behind"))
            answered = nginx.AnswerCounter(behind)
            stack = running.enter_context(weir(folder))
            targets.append(stack.furnish(behind.url))
        for target in targets:
            pin(target.processes, core)
            load.run(target, seconds=WARM_UP_S, connections=CONNECTIONS)
        results = report.new(plan.seconds, plan.rounds)
        results.series = {target.name: report.Series() for target in targets}
        for number in range(plan.rounds):
            print(f"bench: round {number + 1} of {plan.rounds}", file=sys.stderr)
            for target in targets:
                _measure(plan, target, stack, results.series[target.name])
        if stack is not None and answered is not None:
            results.audit = audit(stack, answered)
        return results


def _measure(plan: Plan, target: Target, stack: Stack | None, series: report.Series) -> None:
    """The crowd tells CPU and throughput, the lone caller latency; what the ledger still has to do is waited for."""
    if stack is not None:
        stack.wait_until_drained()
    stores = stack.stores() if stack is not None and target.name == "weir" else []
    if target.processes:  # the upstream alone would only measure itself
        before = cpu_s(stores)
        series.crowd.append(load.run(target, seconds=plan.seconds, connections=CONNECTIONS))
        if stores:
            series.stores_cpu_s.append(cpu_s(stores) - before)
    if stores and stack is not None:
        stack.wait_until_drained()
    series.alone.append(load.run(target, seconds=plan.alone_seconds, connections=1))


if __name__ == "__main__":
    sys.exit(main())
