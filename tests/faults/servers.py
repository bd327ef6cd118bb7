"""Servers and processes that can be killed at any time and begun again where they were."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import OperationFailure
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ledger.connections import client
from tests.conftest import wait_until
from tests.faults import packages
from tests.stack import eventually
from weir.bundled import Mongod, Valkey, free_port, leashed, valkey_binary


@dataclass(frozen=True)
class Kind:
    """A server that the books are promised on."""

    name: str
    binary: Path
    env: dict[str, str] = field(default_factory=dict)


def _valkey() -> Kind:
    return Kind("valkey-9.1", valkey_binary())


def _redis() -> Kind:
    return Kind("redis-7.0", *packages.redis_server())


KINDS: dict[str, Callable[[], Kind]] = {"valkey": _valkey, "redis": _redis}


class Ended(AssertionError):
    """A process ended before it served."""


class Program:
    """A process of its own. A ready one has said so on its pipe, if it does that."""

    def __init__(
        self, command: list[str], env: dict[str, str], log: Path, *, listen: socket.socket | None = None
    ) -> None:
        self._command = command
        self._env = env
        self._log = log
        self._listen = listen
        self._pipe = -1
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def start(self) -> None:
        """Begin it (again), and wait until it serves."""
        self.spawn()
        await self.ready()

    def spawn(self) -> None:
        """On the main thread: the leash is tied to the thread that starts a process."""
        assert not self.alive
        self._forget_pipe()
        self._pipe, tell = os.pipe()
        env = {**_clean_environment(), **self._env, "WEIR_READY_FD": str(tell)}
        passed = [tell]
        if self._listen is not None:
            env["WEIR_LISTEN_FD"] = str(self._listen.fileno())
            passed.append(self._listen.fileno())
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                leashed(self._command), env=env, pass_fds=passed, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        os.close(tell)

    async def ready(self, *, within_s: float = 60) -> None:
        """Until it says that it serves."""
        said = await asyncio.wait_for(self._said(), within_s)
        if not said:
            self.end()
            raise Ended(f"{self._command}: {self._log.read_text()[-2000:]}")

    async def _said(self) -> bytes:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._pipe, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._pipe)
        return os.read(self._pipe, 64)

    def kill(self) -> None:
        """Kill -9; it is gone when this returns."""
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM, *, within_s: float = 60) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def close(self) -> None:
        if self.alive:
            self.kill()
        self._forget_pipe()

    def _forget_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _clean_environment() -> dict[str, str]:
    return {n: value for n, value in os.environ.items() if n == "WEIR_COMPILED" or not n.startswith("WEIR_")}


def python(module: str, env: dict[str, str], log: Path, listen: socket.socket | None = None) -> Program:
    """One of our own processes."""
    return Program([sys.executable, "-m", module], env, log, listen=listen)


class RedisServer(Program):
    """A Redis or Valkey with durable settings, always in the same folder and on the same port."""

    def __init__(self, kind: Kind, folder: Path, *extra: str, env: dict[str, str] | None = None) -> None:
        self.kind = kind
        self.folder = folder
        self.port = free_port()
        bundled = Valkey(folder, self.port, extra).command()
        super().__init__([str(kind.binary), *bundled[1:]], kind.env | (env or {}), folder / "out")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def ready(self, *, within_s: float = 60) -> None:
        asking: Redis = client(self.url, timeout_s=2)
        try:
            await eventually(lambda: self._answers(asking), bool, seconds=within_s)
        finally:
            await asking.aclose()

    async def _answers(self, asking: Redis) -> bool:
        assert self.alive, f"it ended: {(self.folder / 'valkey.log').read_text()[-2000:]}"
        try:
            return bool(await asking.ping())
        except (RedisError, OSError):
            return False

    @property
    def tail(self) -> Path:
        """The file that is being appended to: the last of the manifest."""
        folder = self.folder / "appendonlydir"
        lines = next(folder.glob("*.manifest")).read_text().split("\n")
        names = [words[1] for words in map(str.split, lines) if words and words[5] == "i"]
        return folder / names[-1]


class PoweredRedis(RedisServer):
    """One whose real fsyncs are written down as they end, and whose power can be cut."""

    def __init__(self, kind: Kind, folder: Path, *, slow_us: int) -> None:
        self._lines = folder / "synced"
        shim = {
            "LD_PRELOAD": str(packages.compiled("synced")),
            "WEIR_SYNCED": str(self._lines),
            "WEIR_SYNC_US": str(slow_us),
        }
        super().__init__(kind, folder, env=shim)

    def cut_power(self, random: random.Random) -> tuple[int, int, int]:
        """Kill it, and take from the end of the file what was not on the disk, or a part of that: (synced, cut, size)."""
        self.kill()
        tail = self.tail
        status = tail.stat()
        synced = 0
        for line in self._lines.read_text().splitlines():
            inode, size = map(int, line.split())
            synced = size if inode == status.st_ino else synced
        cut = synced if random.random() < 0.25 else random.randint(synced, status.st_size)
        os.truncate(tail, cut)
        self._lines.write_text("")
        return synced, cut, status.st_size


class MongoServer(Program):
    """A mongod that is the primary of its replica set of one, always in the same folder and on the same port."""

    def __init__(self, folder: Path, *extra: str, env: dict[str, str] | None = None, port: int = 0) -> None:
        self.server = Mongod(folder, port or free_port(), extra)
        super().__init__(self.server.command(), env or {}, folder / "out")

    @property
    def url(self) -> str:
        return self.server.url

    async def ready(self, *, within_s: float = 60) -> None:
        await asyncio.to_thread(self._await_primary, within_s)

    def _await_primary(self, within_s: float) -> None:
        client: MongoClient[dict[str, Any]]
        client = MongoClient(self.server.host, directConnection=True, serverSelectionTimeoutMS=20_000)
        with client:
            if not client.admin.command("hello").get("setName"):
                members = [{"_id": 0, "host": self.server.host}]
                with contextlib.suppress(OperationFailure):  # it was initiated before, and has not loaded that yet
                    client.admin.command("replSetInitiate", {"_id": "weir", "members": members})
            wait_until(
                lambda: bool(client.admin.command("hello").get("isWritablePrimary")), seconds=within_s, why="for mongod"
            )


@contextlib.asynccontextmanager
async def started(*programs: Program) -> AsyncIterator[None]:
    """These run while the block does; none is left behind."""
    with contextlib.ExitStack() as stack:
        for program in programs:
            stack.enter_context(program)
            await program.start()
        yield


def since(began: float) -> float:
    return round(time.monotonic() - began, 3)
