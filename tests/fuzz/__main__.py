"""`python -m tests.fuzz`: every check on new cases until the time is up; the counts at the end, or the first that fails.

`WEIR_FUZZ_SECONDS` is how long (3600), `WEIR_FUZZ_SEED` repeats a run. `python -m tests.fuzz NAME HEX` is one case again.
"""

import os
import random
import secrets
import sys
import time
from collections import Counter

from tests.fuzz.checks import CHECKS, failure, shrunk
from tests.fuzz.tape import LENGTH, Tape

_SLICE_S = 1.0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    if len(arguments) == 2:
        CHECKS[arguments[0]](Tape(bytes.fromhex(arguments[1])))
        say("passed")
        return 0
    seconds = float(os.environ.get("WEIR_FUZZ_SECONDS", "3600"))
    seed = int(os.environ.get("WEIR_FUZZ_SEED", "0")) or secrets.randbelow(2**32)
    say(f"seed {seed}, {seconds:g} s")
    counts, found = _run(random.Random(seed), seconds)
    for name, count in counts.items():
        say(f"{name}: {count:,} cases")
    say(f"{sum(counts.values()):,} cases, {'one of which failed' if found else 'none of which failed'}")
    if found is None:
        return 0
    name, data = found
    say(f"python -m tests.fuzz {name} {shrunk(name, data).hex() or '00'}")
    CHECKS[name](Tape(data))
    return 1


def _run(choices: random.Random, seconds: float) -> tuple[Counter[str], tuple[str, bytes] | None]:
    """How many cases of each check there were, and the one that failed."""
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name in CHECKS:
            until = min(time.monotonic() + _SLICE_S, end)
            while time.monotonic() < until:
                data = choices.randbytes(LENGTH)
                counts[name] += 1
                if failure(name, data):
                    return counts, (name, data)
    return counts, None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
