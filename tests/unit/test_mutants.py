"""The mutation check itself: what cannot be run is named, and red for another reason is not red."""

import subprocess
import sys
from typing import Any

import pytest
from msgspec.structs import replace

from tests.mutants import catalogue
from tests.mutants.catalogue import MECHANISMS
from tests.mutants.trial import LIMIT_S, _judged, _Run

MUTANTS = {mutant.name: mutant for mutant in catalogue.load()}
FENCE = MUTANTS["fence"]


def test_every_mechanism_has_a_mutant_that_applies_and_a_test() -> None:
    assert catalogue.problems([*MUTANTS.values()]) == []
    command = [sys.executable, "-m", "tests.mutants", "--check"]
    assert subprocess.run(command, cwd=catalogue.ROOT, check=False, timeout=30).returncode == 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"old": "no such text"}, "fence: `old` stands 0 times in ledger/lua/prelude.lua, not once"),
        ({"old": "local"}, "times in ledger/lua/prelude.lua, not once"),
        ({"new": FENCE.old}, "fence: changes nothing"),
        ({"file": "ledger/lua/gone.lua"}, "No such file"),
        ({"file": "ledger/money.py", "old": "import ", "new": "import import "}, "ledger/money.py"),
        ({"test": FENCE.test + "_gone"}, "fence: there is no test tests/lua/"),
        ({"test": "tests/gone.py::test"}, "fence: there is no test tests/gone.py::test"),
        ({"says": "("}, "fence: missing )"),
    ],
)
def test_what_cannot_be_run_is_named(change: dict[str, Any], problem: str) -> None:
    mutants = {**MUTANTS, "fence": replace(FENCE, **change)}
    [found] = catalogue.problems([*mutants.values()])
    assert problem in found


def test_a_mechanism_without_a_mutant_is_named() -> None:
    found = catalogue.problems([])
    assert found == [f"{name}: the mechanism has no mutant" for name in MECHANISMS]


SAID = "assert [b'OK', 1] == [b'FENCED']"


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (_Run("", 1, failures=(SAID,)), "red"),
        (_Run("", 1, passed=3, failures=(SAID,)), "red"),
        (_Run("", 1, passed=1), "survived"),
        (_Run("", 1), "broken"),
        (_Run("", LIMIT_S, finished=False), "broken"),
        (_Run("", 1, failures=("assert 1 == 2",)), "broken"),
        (_Run("", 1, failures=(SAID,), errors=("failed on setup",)), "broken"),
        (_Run("", 1, failures=(f"E   ImportError: no module\n{SAID}",)), "broken"),
        (_Run("", 1, failures=(f"ResponseError: Error compiling script (new function)\n{SAID}",)), "broken"),
        (_Run("", 1, failures=(f"ResponseError: user_script:12: attempt to index a nil value\n{SAID}",)), "broken"),
        (_Run("", 1, failures=(f"Failed: Timeout (>60.0s) from pytest-timeout.\n{SAID}",)), "broken"),
    ],
)
def test_only_the_invariant_counts(run: _Run, verdict: str) -> None:
    assert _judged(FENCE, run).verdict == verdict
