"""The processes that `weir` starts: born on a leash, watched, begun again when they die, stopped in order."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ledger import log
from weir.bundled import leashed

_AGAIN_AFTER_S = (0.1, 0.5, 1.0, 2.0, 5.0)
_LIVED_LONG_S = 30.0


class ChildFailed(Exception):
    """A process ended before it was ready; the message says which, and what it said last."""


@dataclass
class Child:
    """One process. `ready` asks or waits until it serves; `grace_s` is how long it may take to stop."""

    name: str
    command: Sequence[str]
    env: dict[str, str] = field(default_factory=dict)
    log_file: Path | None = None
    listen_fd: int | None = None
    tells_ready: bool = False
    grace_s: float = 10.0
    process: asyncio.subprocess.Process | None = None
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    watching: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.returncode is None else None


class Children:
    """Starts and stops processes; `on_death` hears of each that ended, by its process id."""

    def __init__(self, *, on_death: Callable[[int], None] = lambda _pid: None) -> None:
        self._on_death = on_death
        self._stopping = False
        self.all: list[Child] = []

    async def start(self, child: Child) -> None:
        """Start a process and keep it running until `stop`."""
        self.all.append(child)
        await self._spawn(child)
        child.watching = asyncio.create_task(self._watch(child))

    async def ready(self, child: Child, *, within_s: float) -> None:
        """Wait until a process says that it serves; ChildFailed with its last words if it ends or takes too long."""
        assert child.process is not None
        first = child.process
        serving = asyncio.create_task(child.is_ready.wait())
        ended = asyncio.create_task(first.wait())
        done, pending = await asyncio.wait((serving, ended), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if serving not in done:
            what = f"ended with status {first.returncode}" if done else f"was not ready within {within_s:g} s"
            raise ChildFailed(f"{child.name} {what}{self._last_words(child)}")

    async def _spawn(self, child: Child) -> None:
        env = {**os.environ, **child.env}
        passed = [child.listen_fd] if child.listen_fd is not None else []
        if child.listen_fd is not None:
            env["WEIR_LISTEN_FD"] = str(child.listen_fd)
        told = None
        if child.tells_ready:
            told, tell = os.pipe()
            env["WEIR_READY_FD"] = str(tell)
            passed.append(tell)
        with contextlib.ExitStack() as files:
            out = files.enter_context(child.log_file.open("ab")) if child.log_file else None
            # A session of its own: Ctrl-C in the terminal is for us, and we stop the others in order.
            child.process = await asyncio.create_subprocess_exec(
                *leashed(list(child.command)),
                env=env,
                pass_fds=passed,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        if told is not None:
            os.close(tell)
            _listen(told, child.is_ready)

    async def _watch(self, child: Child) -> None:
        deaths = 0
        while True:
            assert child.process is not None
            born = time.monotonic()
            status = await child.process.wait()
            self._on_death(child.process.pid)
            if self._stopping:
                return
            was_ready = child.is_ready.is_set()
            child.is_ready.clear()
            if child.tells_ready and not was_ready and deaths == 0:
                return  # it never served: whoever waits for it says why
            deaths = 0 if time.monotonic() - born > _LIVED_LONG_S else deaths + 1
            log.get().error("process_ended", child=child.name, status=status, attempts=deaths)
            await asyncio.sleep(_AGAIN_AFTER_S[min(deaths, len(_AGAIN_AFTER_S)) - 1])
            if self._stopping:
                return
            await self._spawn(child)

    async def stop(self, *groups: Sequence[Child]) -> None:
        """Stop each group in turn, its members together: SIGTERM, then SIGKILL when their grace is over."""
        self._stopping = True
        for group in groups:
            await asyncio.gather(*(self._end(child) for child in group))

    async def _end(self, child: Child) -> None:
        process = child.process
        if child.watching is not None and (process is None or process.returncode is not None):
            child.watching.cancel()
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), child.grace_s)
        except TimeoutError:
            log.get().error("process_killed", child=child.name)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    @staticmethod
    def _last_words(child: Child) -> str:
        if child.log_file is None or not child.log_file.exists():
            return ""
        lines = child.log_file.read_text(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


def _listen(descriptor: int, event: asyncio.Event) -> None:
    """Set the event when a process writes to its readiness pipe; close the pipe when it has, or has died."""
    loop = asyncio.get_running_loop()

    def heard() -> None:
        if os.read(descriptor, 64):
            event.set()
        loop.remove_reader(descriptor)
        os.close(descriptor)

    loop.add_reader(descriptor, heard)
