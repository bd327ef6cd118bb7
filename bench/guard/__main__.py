"""`python -m bench.guard`: compare with the baseline, status 1 if a path takes more; `--accept` makes these the baseline."""

import argparse
import sys

from bench.guard import counting
from bench.machine import VALGRIND, CannotRunError, ensure_tools


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.guard", description=__doc__)
    parser.add_argument("--accept", action="store_true", help="write the baseline")
    accept = parser.parse_args().accept
    try:
        ensure_tools(VALGRIND, {})
        counted = counting.count()
    except CannotRunError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    if accept:
        counting.accept(counted)
    lines, worse = counting.compared(counted)
    print("\n".join(lines))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
