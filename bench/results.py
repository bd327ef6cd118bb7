"""What was measured, as JSON for the next reader."""

import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from bench.audit import Audit
from bench.contest import Measure

FOLDER = Path(__file__).with_name("results")


class Spread(NamedTuple):
    """The median of some rounds, and the least and the most of them."""

    middle: float
    least: float
    most: float


class Results(msgspec.Struct):
    at: str
    machine: str
    versions: dict[str, str]
    measures: list[Measure]
    audit: Audit | None = None
    instructions: dict[str, int] = {}
    minutes: float = 0.0
    command: str = ""
    load: float = 0.0
    """What else the machine was doing before: runnable processes, averaged over a minute."""
    failures: list[str] = []
    """Runs of peers that gave no measure, and why."""

    def rounds(self, scenario: str, contestant: str, value: str) -> list[float]:
        """One value in the order of its rounds."""
        return list(self._by_round(scenario, contestant, value).values())

    def spread(self, scenario: str, contestant: str, value: str) -> Spread | None:
        return spread(self.rounds(scenario, contestant, value))

    def between(
        self, scenario: str, value: str, ours: str, theirs: str, how: Callable[[float, float], float]
    ) -> Spread | None:
        """Round by round, then the median: neighbours in time share the machine's mood."""
        us, them = self._by_round(scenario, ours, value), self._by_round(scenario, theirs, value)
        return spread([how(us[number], them[number]) for number in us if number in them])

    def _by_round(self, scenario: str, contestant: str, value: str) -> dict[int, float]:
        return {
            one.round: one.values[value]
            for one in self.measures
            if one.scenario == scenario and one.contestant == contestant and value in one.values
        }

    def contestants(self, scenario: str) -> list[str]:
        return list(dict.fromkeys(one.contestant for one in self.measures if one.scenario == scenario))

    def scenarios(self) -> list[str]:
        return list(dict.fromkeys(one.scenario for one in self.measures))


def spread(values: list[float]) -> Spread | None:
    return Spread(median(values), min(values), max(values)) if values else None


def new(versions: dict[str, str], command: str, load: float) -> Results:
    machine = f"{platform.machine()} {platform.system()}, {_processor()}, Python {platform.python_version()}"
    return Results(datetime.now(UTC).isoformat(timespec="seconds"), machine, versions, [], command=command, load=load)


def save(results: Results) -> Path:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{results.at.replace(':', '').replace('+0000', 'Z')}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    return path


def load(path: Path) -> Results:
    return msgspec.json.decode(path.read_bytes(), type=Results)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else "processor unknown"
