"""What is run, in which order, and for how long: the full bench in under 30 minutes, the quick one in under 3."""

from typing import Protocol

from bench.arena import PEERS, Arena
from bench.scenarios.crowd import Crowd
from bench.scenarios.interpreted import Interpreted
from bench.scenarios.many_keys import Drain, ManyKeys
from bench.scenarios.rate import Rate
from bench.scenarios.scripts import Scripts
from bench.scenarios.start import Start
from bench.scenarios.streaming import Chunks, Open

START = "cold start"
OPEN = "open streams"
CHUNKS = "stream"
LARGE = "200 KB prompts"
MAIN = "64 connections"
ALONE = "1 connection"
WITH_LEDGER = f"{MAIN}, the ledger at work"
MANY = "many keys"
DRAIN = "ledger"
SCRIPTS = "admit and settle"


class Scenario(Protocol):
    """One kind of measurement: who takes part, and one run of it."""

    @property
    def name(self) -> str: ...
    @property
    def rounds(self) -> int: ...
    def who(self, arena: Arena) -> list[str]: ...
    def measure(self, arena: Arena, name: str) -> dict[str, float]: ...


# An absolute figure and no ratio, so its rounds are spread over the run: the machine's mood changes by the minute.
_SCRIPTS = Scripts(SCRIPTS, requests=6_000, at_once=16, rounds=2)

# What wants untouched processes goes first; what leaves a million keys behind goes last.
FULL: tuple[Scenario, ...] = (
    Open(OPEN, streams=2_000, rounds=3),
    Start(START, rounds=5),
    _SCRIPTS,
    Crowd(MAIN, connections=64, seconds=5, rounds=7),
    Crowd(WITH_LEDGER, connections=64, seconds=6, rounds=3, with_ledger=True),
    Interpreted(f"{MAIN}, interpreted", connections=64, seconds=6, rounds=3),
    _SCRIPTS,
    Crowd(ALONE, connections=1, seconds=3, rounds=9, direct=True),
    Crowd(f"{ALONE}, the ledger at work", connections=1, seconds=3, rounds=3, with_ledger=True),
    Crowd("8 connections", connections=8, seconds=4, rounds=3),
    _SCRIPTS,
    Crowd("512 connections", connections=512, seconds=6, rounds=3),
    _SCRIPTS,
    Crowd("10 KB prompts", connections=64, seconds=4, rounds=3, size=10_000),
    Crowd(LARGE, connections=64, seconds=5, rounds=3, size=200_000),
    _SCRIPTS,
    Chunks(CHUNKS, streams=100, chunks=100, pace_ms=20, rounds=7),
    _SCRIPTS,
    Rate("50 requests/s", per_s=50, seconds=6, rounds=3),
    Rate("1,000 requests/s", per_s=1_000, seconds=6, rounds=3, all=False),
    ManyKeys(MANY, few=10, many=1_000_000, connections=1, seconds=5, rounds=7),
    Drain(DRAIN, keys=1_000_000, seconds=6, rounds=3),
)
QUICK: tuple[Scenario, ...] = (
    Open(OPEN, streams=2_000, rounds=1),
    Start(START, rounds=1),
    Crowd(MAIN, connections=64, seconds=2, rounds=2),
    Crowd(ALONE, connections=1, seconds=1, rounds=2, direct=True),
    Crowd(f"{ALONE}, the ledger at work", connections=1, seconds=1, rounds=2, with_ledger=True),
    Crowd(LARGE, connections=64, seconds=2, rounds=1, size=200_000, slow=False),
    Chunks(CHUNKS, streams=100, chunks=50, pace_ms=20, rounds=1),
    Scripts(SCRIPTS, requests=4_000, at_once=16, rounds=2),
    Rate("50 requests/s", per_s=50, seconds=2, rounds=1),
    ManyKeys(MANY, few=10, many=10_000, connections=1, seconds=1, rounds=2),
    Drain(DRAIN, keys=10_000, seconds=3, rounds=1),
)
ALL_PEERS = tuple(PEERS)
