"""`python -m bench.flame`: Weir alone under load, and where one worker's time goes, as a flame graph in docs/charts.

py-spy looks at the worker from outside, 500 times a second, native frames left out; it needs the right to trace a process.
"""

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from bench.arena import opened
from bench.contestants import weir
from bench.contestants.peers import PEERS
from bench.load import closed
from bench.machine import CannotRunError, ensure_tools, many_files, two_cores
from bench.report import DOCS

_SECONDS = 10
_TITLE = "One Weir worker at 64 connections, metered"
_COMMAND = re.compile(r">[^<>]*py-spy record[^<>]*<")
_PICTURE = DOCS / "charts" / "flame.svg"


def main() -> int:
    try:
        ensure_tools()
        many_files()
        with TemporaryDirectory(prefix="weir-flame-") as folder, opened(Path(folder), two_cores(), []) as arena:
            contestant = arena.contestants[weir.NAME]
            with _watched(contestant.processes[0].pid) as watching:
                closed.run(contestant, seconds=_SECONDS + 2, connections=64)
                said = watching.communicate()[1]
            if watching.returncode:
                raise CannotRunError(f"py-spy: {said.decode().strip().splitlines()[-1]}")
            # py-spy's title is its own command line, with this machine's paths in it.
            _PICTURE.write_text(_COMMAND.sub(f">{_TITLE}<", _PICTURE.read_text()))
    except (CannotRunError, httpx2.HTTPError) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    print(f"written to {_PICTURE}")
    return 0


def _watched(pid: int) -> subprocess.Popen[bytes]:
    _PICTURE.parent.mkdir(parents=True, exist_ok=True)
    command = [str(PEERS / "tools" / "bin" / "py-spy"), "record", "--pid", str(pid), "--duration", str(_SECONDS)]
    drawing = ["--rate", "500", "--output", str(_PICTURE)]
    return subprocess.Popen([*command, *drawing], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


if __name__ == "__main__":
    sys.exit(main())
