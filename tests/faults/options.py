"""How much is asked for, and what came of it.

`WEIR_FAULTS=full` is the form with the targets of the plan, `short` (the default) about a tenth of it, for `make test`.
`WEIR_FAULTS_SEED` repeats a run's choices; `WEIR_FAULTS_RESULTS` is the folder for the results, one JSON file a test.
"""

import json
import os
import platform
import random
import secrets
import time
from pathlib import Path
from typing import Any

FORM = os.environ.get("WEIR_FAULTS", "short")
assert FORM in ("short", "full"), "WEIR_FAULTS is short or full"
SEED = int(os.environ.setdefault("WEIR_FAULTS_SEED", str(secrets.randbelow(2**32))))  # one for all test processes
PROPERTY = "faults"  # the report's property with the line for the terminal
RECOVERY_S = 5.0  # from a restart to the next request served


def asked(*, full: int, short: int) -> int:
    """How many of something this form asks for."""
    return full if FORM == "full" else short


def generator(name: str) -> random.Random:
    """The choices of one test: the same for the same seed, whichever tests run beside it."""
    return random.Random(f"{SEED} {name}")


class Tally:
    """What one run reached, against what was asked: fewer is a failure. Written down whatever the outcome."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.random = generator(name)
        self.counts: dict[str, Any] = {}
        self._least: dict[str, float] = {}
        self._most: dict[str, float] = {}
        self._began = time.monotonic()
        self.checked = False

    def add(self, what: str, count: float = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + count

    def peak(self, what: str, value: float) -> None:
        self.counts[what] = round(max(self.counts.get(what, 0), value), 3)

    def note(self, **facts: Any) -> None:
        self.counts |= facts

    def at_least(self, **targets: float) -> None:
        self._least |= targets

    def at_most(self, **targets: float) -> None:
        self._most |= targets

    def at_least_rate(self, **targets: float) -> None:
        """Rates and times judge a machine too: the full form holds to them, the short one, part of `make test`, prints."""
        if FORM == "full":
            self.at_least(**targets)

    def at_most_seconds(self, **targets: float) -> None:
        if FORM == "full":
            self.at_most(**targets)

    def check(self) -> None:
        """Every target is reached; otherwise the test fails with all that was counted."""
        self.checked = True
        few = {name: least for name, least in self._least.items() if self.counts.get(name, 0) < least}
        many = {name: most for name, most in self._most.items() if self.counts.get(name, most + 1) > most}
        assert not few, f"fewer than asked: {few}; seed {SEED}; {self.counts}"
        assert not many, f"more than allowed: {many}; seed {SEED}; {self.counts}"

    def write(self, folder: Path, *, passed: bool) -> str:
        """Keep the results as JSON; answers the line for the terminal."""
        seconds = round(time.monotonic() - self._began, 1)
        found = {
            "test": self.name,
            "form": FORM,
            "seed": SEED,
            "passed": passed,
            "seconds": seconds,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "at_least": self._least,
            "at_most": self._most,
            "counts": self.counts,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(found, indent=1) + "\n")
        counts = ", ".join(f"{name} {value}" for name, value in self.counts.items())
        return f"{self.name} ({seconds} s): {counts}"
