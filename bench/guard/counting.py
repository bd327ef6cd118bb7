"""Counts instructions per walk of each path, and compares them with the committed baseline."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from bench.guard.paths import PATHS, WALKS
from bench.machine import CannotRunError

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.03
_NAME = re.compile(r"^desc: Trigger: Client Request: (.+)$", re.MULTILINE)
_TOTAL = re.compile(r"^totals: (\d+)", re.MULTILINE)
_TIMEOUT_S = 300


class Baseline(msgspec.Struct):
    """Counts hold for one version of Python, and for one kind of machine."""

    on: str
    instructions: dict[str, int]


def here() -> str:
    major, minor, _ = platform.python_version_tuple()
    return f"{platform.machine()}, Python {major}.{minor}"


def count() -> Baseline:
    """Instructions of one walk of each path."""
    with TemporaryDirectory(prefix="weir-guard-") as folder:
        _run(Path(folder) / "out")
        dumps = [path.read_text() for path in Path(folder).iterdir()]
    total = {
        name[1]: int(number[1]) for dump in dumps if (name := _NAME.search(dump)) and (number := _TOTAL.search(dump))
    }
    if missing := [name for name in PATHS if name not in total]:
        raise CannotRunError(f"callgrind counted nothing for {', '.join(missing)}")
    return Baseline(here(), {name: (total[name] - total["nothing"]) // WALKS for name in PATHS})


def accept(counted: Baseline) -> None:
    BASELINE.write_bytes(msgspec.json.format(msgspec.json.encode(counted), indent=1) + b"\n")


def compared(counted: Baseline) -> tuple[list[str], list[str]]:
    """A line for each path, and the names of those that take more than the baseline allows."""
    baseline = msgspec.json.decode(BASELINE.read_bytes(), type=Baseline)
    if baseline.on != counted.on:
        return [f"guard: the baseline is for {baseline.on}, and this is {counted.on}: nothing is compared"], []
    lines, worse = [], []
    for name, instructions in counted.instructions.items():
        known = baseline.instructions.get(name)
        change = instructions / known - 1 if known else 0.0
        verdict = ""
        if change > TOLERANCE:
            verdict = "  MORE than before"
            worse.append(name)
        elif change < -TOLERANCE:
            verdict = "  fewer: accept it with make bench-accept"
        lines.append(f"guard: {name:18} {instructions:>10,} instructions ({change:+.1%}){verdict}")
    return lines, worse


def _run(out: Path) -> None:
    ended = subprocess.run(
        [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"),
            *(sys.executable, "-m", "bench.guard.paths"),
        ],
        # The seed orders sets and dictionaries of text; the rest of the environment is left out, as it moves the stack.
        # The source is counted as it is: it is what a change changes, compiled or not.
        env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "WEIR_COMPILED": "0"},
        capture_output=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if ended.returncode:
        raise CannotRunError(f"callgrind failed: {ended.stderr.decode().strip()[-200:]}")
