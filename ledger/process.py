"""What every process does alike: one-line errors for an operator, signals, readiness told to whoever started it."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable

from ledger.settings import Settings, SettingsError, load

MISUSED = 2
# A request leaves nothing that only the collector frees (tests/integration/test_garbage.py); to look after every 700 objects
# took 6 % of a gateway, and a sixth of what the ledger spends on an event.
COLLECT_EVERY = 10_000


def say(line: str) -> None:
    """One line for the operator, on standard error."""
    sys.stderr.write(f"weir: {line}\n")
    sys.stderr.flush()


def settings_or_exit(*need: str) -> Settings:
    """The settings; otherwise every problem on a line of its own and exit status 2."""
    try:
        return load(need=need)
    except SettingsError as error:
        for line in error.lines:
            say(line)
        raise SystemExit(MISUSED) from None


def fail(message: str) -> SystemExit:
    """One readable line; raise what is returned."""
    say(message)
    return SystemExit(MISUSED)


def ready() -> None:
    """What is there now stays: nobody needs to look through it again for garbage. And tell the process that started this
    one (environment WEIR_READY_FD) that it serves now; once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 20, 50)
    descriptor = os.environ.pop("WEIR_READY_FD", "")
    if descriptor:
        with contextlib.suppress(OSError):  # nobody listens any more: then nobody needs to know
            os.write(int(descriptor), b"ready\n")


def on_stop(callback: Callable[[], None]) -> None:
    """Call back on SIGTERM and SIGINT, in the event loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, callback)
