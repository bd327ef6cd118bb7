"""`python -m tests.mutants`: does a test go red for each mechanism that is removed? Exit 0 only if every one does."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.mutants import catalogue
from tests.mutants.catalogue import Mutant
from tests.mutants.trial import Copy, Outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only that every patch applies and every test exists")
    parser.add_argument("--only", metavar="NAME", action="append", help="this mutant; may be given again")
    default = Path(tempfile.gettempdir()) / "weir-mutants.json"
    parser.add_argument("--json", metavar="FILE", type=Path, default=default, help="where the results go")
    options = parser.parse_args()
    mutants = catalogue.load()
    found = catalogue.problems(mutants)
    for problem in found:
        _say(f"mutants: {problem}", error=True)
    if found or options.check:
        return 1 if found else 0
    chosen = [m for m in mutants if not options.only or m.name in options.only]
    if unknown := {*(options.only or ())} - {m.name for m in mutants}:
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped on the way out of its block
    return _run(chosen, options.json)


def _run(mutants: list[Mutant], file: Path) -> int:
    tests = sorted({mutant.test for mutant in mutants})
    with Copy() as copy:
        baseline = copy.baseline(tests)
        if baseline.verdict != "survived":
            _say(f"{baseline.detail}\nmutants: the tests are not green without any mutant", error=True)
            return 2
        _say(f"baseline: {len(tests)} tests are green, {baseline.seconds:.1f} s\n")
        width = max(len(mutant.name) for mutant in mutants)
        outcomes: dict[str, Outcome] = {}
        for mutant in mutants:
            outcome = outcomes[mutant.name] = copy.trial(mutant)
            test = mutant.test.removeprefix("tests/")
            _say(f"{mutant.name:<{width}}  {_shown(outcome):<8}  {outcome.seconds:5.1f} s  {test}")
    bad = {name: outcome for name, outcome in outcomes.items() if outcome.verdict != "red"}
    for name, outcome in bad.items():
        _say(f"\n{name}: {outcome.verdict}\n{outcome.detail}", error=True)
    seconds = baseline.seconds + sum(outcome.seconds for outcome in outcomes.values())
    _say(f"\n{len(outcomes) - len(bad)} of {len(outcomes)} mutants were noticed, {seconds:.0f} s")
    _save(file, mutants, baseline, outcomes)
    return 1 if bad else 0


def _shown(outcome: Outcome) -> str:
    return {"red": "red", "survived": "GREEN", "broken": "BROKEN"}[outcome.verdict]


def _save(file: Path, mutants: list[Mutant], baseline: Outcome, outcomes: dict[str, Outcome]) -> None:
    rows = [
        {"mutant": m.name, "why": m.why, "file": m.file, "test": m.test, **msgspec.to_builtins(outcomes[m.name])}
        for m in mutants
    ]
    made = {"baseline_seconds": round(baseline.seconds, 1), "mutants": rows}
    file.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    _say(f"written to {file}")


def _say(text: str, *, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
