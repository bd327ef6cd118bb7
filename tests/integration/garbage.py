"""A gateway that says, for each line it is told, what only Python's collector would have freed since the line before."""

import collections
import ctypes
import gc
import json
import sys
import threading


def _told() -> None:
    for _ in sys.stdin:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = collections.Counter(type(each).__qualname__ for each in gc.garbage)
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # so that what is resident is what is in use
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    from gateway import __main__ as gateway
    from ledger import process

    process.COLLECT_EVERY = 10**9
    threading.Thread(target=_told, daemon=True).start()
    gateway.main()
