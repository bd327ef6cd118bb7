"""A copy of the tree in which mutants are tried: patch, run one test, put back. The checkout is never written to."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Literal, Self

import msgspec

from tests.mutants.catalogue import ROOT, Mutant

LIMIT_S = 120
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "results", "*.egg-info")
# A test that fails for one of these has not noticed anything; it could not run.
_BROKEN = re.compile(
    r"^E?\s*(ImportError|ModuleNotFoundError|SyntaxError|IndentationError|NameError|UnboundLocalError)\b"
    r"|Error compiling script|user_script:\d+|@user_script|Timeout \(>",
    re.MULTILINE,
)


class Outcome(msgspec.Struct, frozen=True):
    """`red`: the test failed as it should. `survived`: it passed. `broken`: it failed for another reason, or never ran.

    `detail`: what a red test said, or all that was printed where it was to be something else.
    """

    verdict: Literal["red", "survived", "broken"]
    seconds: float
    detail: str = ""


class _Run(msgspec.Struct, frozen=True):
    """What one pytest run printed, and its test cases: how many passed, what failed, what broke outside a test's body."""

    output: str
    seconds: float
    finished: bool = True
    passed: int = 0
    failures: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class Copy:
    """The tree in a temporary folder of its own."""

    def __init__(self) -> None:
        self._temporary = TemporaryDirectory(prefix="weir-mutants-")
        self._folder = Path(self._temporary.name)
        self.root = self._folder / "tree"

    def __enter__(self) -> Self:
        shutil.copytree(ROOT, self.root, ignore=_NOT_COPIED, symlinks=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._temporary.cleanup()

    def baseline(self, tests: list[str]) -> Outcome:
        """All named tests on the tree as it is; `survived` is what is wanted here."""
        run = self._pytest(tests, limit_s=LIMIT_S + 10 * len(tests))
        if run.finished and run.passed >= len(tests) and not run.failures and not run.errors:
            return Outcome("survived", run.seconds)
        return Outcome("broken", run.seconds, run.output)

    def trial(self, mutant: Mutant) -> Outcome:
        """The mutant's test with its mechanism removed."""
        path = self.root / mutant.file
        whole, patched = path.read_bytes(), mutant.patched(self.root)
        path.write_text(patched)
        try:
            run = self._pytest([mutant.test], "-x", limit_s=LIMIT_S)
        finally:
            path.write_bytes(whole)
        return _judged(mutant, run)

    def _pytest(self, tests: list[str], *options: str, limit_s: float) -> _Run:
        report = self._folder / "report.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-vv", "--color=no", f"--junitxml={report}"]
        command += [f"--basetemp={self._folder / 'tmp'}", f"--timeout={LIMIT_S / 2}", *options, *tests]
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("WEIR_", "PYTEST_"))}
        # Without byte code: a patch of the same length within the same second would not be seen.
        env = {**kept, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        began = time.monotonic()
        child = subprocess.Popen(
            command,
            cwd=self.root,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return _Run("", time.monotonic() - began, finished=False)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        return _read(report, output, time.monotonic() - began)


def _read(report: Path, output: str, seconds: float) -> _Run:
    if not report.is_file():
        return _Run(output, seconds, finished=False)
    passed, failures, errors = 0, [], []
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        failed = [_text(child) for child in case if child.tag == "failure"]
        # A teardown that finds what the failed test left behind says nothing about the test.
        broken = [
            _text(c) for c in case if c.tag in ("error", "skipped") and "teardown" not in c.get("message", "").lower()
        ]
        failures += failed
        errors += broken
        passed += not failed and not broken
    return _Run(output, seconds, passed=passed, failures=tuple(failures), errors=tuple(errors))


def _text(element: ET.Element) -> str:
    return f"{element.get('message', '')}\n{element.text or ''}"


def _judged(mutant: Mutant, run: _Run) -> Outcome:
    if not run.finished:
        return Outcome("broken", run.seconds, run.output or f"no answer within {LIMIT_S} s")
    if run.errors or not (run.failures or run.passed):
        return Outcome("broken", run.seconds, run.output)
    if not run.failures:
        return Outcome("survived", run.seconds)
    text = "\n".join(run.failures)
    if (found := _BROKEN.search(text)) is not None:
        return Outcome("broken", run.seconds, f"failed on {found[0]!r}, not on the invariant\n{run.output}")
    if (said := re.search(mutant.says, text)) is None:
        return Outcome("broken", run.seconds, f"failed, but never said {mutant.says!r}\n{run.output}")
    return Outcome("red", run.seconds, said[0])
