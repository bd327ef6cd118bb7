"""The machine: what must be installed on it, its two cores, and what a process has used of them."""

import ctypes.util
import os
import resource
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

TOOLS = {"nginx": "nginx-light", "wrk": "wrk"}
VALGRIND = {"valgrind": "valgrind"}
LIBRARIES = {"jemalloc": "libjemalloc2"}  # what packaged servers are built with; see weir/bundled.py
START_TIMEOUT_S = 60.0
FILES = 16_384
INSTALL_TIMEOUT_S = 120.0
_SBIN = "/usr/sbin:/sbin"


class CannotRunError(Exception):
    """One line for the person who asked; nothing was measured."""


def ensure_tools(tools: Mapping[str, str] = TOOLS, libraries: Mapping[str, str] = LIBRARIES) -> None:
    """Installs what is missing from the system's packages where that is allowed."""
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{_SBIN}"
    missing = [package for tool, package in tools.items() if shutil.which(tool) is None]
    missing += [package for library, package in libraries.items() if ctypes.util.find_library(library) is None]
    if not missing:
        return
    install = f"apt-get install {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CannotRunError(f"this needs {' and '.join(missing)}: {install}")
    print(f"bench: installing {' and '.join(missing)}", file=sys.stderr)
    # RUNLEVEL=1 keeps the package from starting a server of its own.
    environment = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            subprocess.run(
                ["apt-get", "-qq", *command],
                env=environment,
                check=True,
                capture_output=True,
                timeout=INSTALL_TIMEOUT_S,
            )
    except (subprocess.SubprocessError, OSError):
        raise CannotRunError(f"this needs {' and '.join(missing)}, and {install} did not work here") from None


def two_cores() -> tuple[int, int]:
    """The core for what is measured, and the core for all the rest, which this process moves to."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise CannotRunError("this needs two cores: one for what is measured, one for the load")
    os.sched_setaffinity(0, {cores[1]})  # children inherit it
    return cores[0], cores[1]


def pin(processes: Iterable[psutil.Process], core: int) -> None:
    for process in processes:
        for thread in process.threads():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, {core})


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """User and system time so far, to the nanosecond: `/proc/PID/stat` counts hundredths of a second.

    The number of a process' clock is what `clock_getcpuclockid(3)` makes of its id on Linux. Raises psutil.NoSuchProcess.
    """
    return sum(_clock_s(process.pid) for process in processes)


def _clock_s(pid: int) -> float:
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        raise psutil.NoSuchProcess(pid) from None


def many_files() -> None:
    """Thousands of streams are open at once, here and in every child."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    if allowed < FILES // 2:
        raise CannotRunError(f"this needs {FILES // 2} open files, and {most} are allowed: see ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    command: list[str], *, environment: dict[str, str] | None = None, stdout: int | IO[bytes], log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """A child for as long as the block lasts."""
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=log) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def server(
    folder: Path, name: str, command: list[str], port: int, *, environment: dict[str, str] | None = None
) -> Iterator[psutil.Process]:
    """A server for as long as the block lasts, once it listens on `port`; what it says is in the folder."""
    log = folder / f"{name}.err"
    with (
        log.open("ab") as errors,
        started(command, environment=environment, stdout=errors.fileno(), log=errors) as child,
    ):
        deadline = time.monotonic() + START_TIMEOUT_S
        while not listens(port):
            if child.poll() is not None or time.monotonic() > deadline:
                said = log.read_text().strip().splitlines()
                raise CannotRunError(f"{name} did not start: {said[-1] if said else 'it says nothing'}")
            time.sleep(0.02)
        yield psutil.Process(child.pid)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def family(root: psutil.Process) -> list[psutil.Process]:
    """A process and its descendants, but for the children in which Redis writes its file anew: they end when they like.

    One that has ended is by itself.
    """
    found = [root]
    for process in _below(root):
        with suppress(psutil.NoSuchProcess):
            parent = process.parent()
            if parent is None or not parent.name().startswith(("valkey", "redis")):
                found.append(process)
    return found


def _below(root: psutil.Process) -> list[psutil.Process]:
    try:
        return root.children(recursive=True)
    except psutil.NoSuchProcess:  # it may end at any moment, so there is no asking first
        return []


def read_line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
    """The first line that a child prints; empty if none comes in time."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    return process.stdout.readline() if ready else b""
