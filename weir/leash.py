"""Run a command that dies with its parent, whatever kills the parent: `python leash.py PARENT_PID COMMAND...`.

The kernel sends the signal (prctl PR_SET_PDEATHSIG), so not even `kill -9` of the parent leaves a process behind. A
program of its own, because code between fork and exec in a threaded parent is not safe.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before we asked
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
