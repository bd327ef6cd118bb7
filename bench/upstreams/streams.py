"""The streaming upstream as the bench drives it: its process, what every stream is to be, and what it has sent."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import msgspec
import psutil

from bench.machine import free_port, server


class Sent(msgspec.Struct):
    """What a writer has sent since it began."""

    started: int
    finished: int
    chunks: int


class Writer(NamedTuple):
    """A running `bench.upstreams.writer`."""

    url: str
    process: psutil.Process

    def each(self, *, chunks: int, pace_ms: int) -> Sent:
        """Every stream, also those that are open, has so many chunks, at this pace."""
        return self._asked(f"/set?chunks={chunks}&pace_ms={pace_ms}")

    def sent(self) -> Sent:
        return self._asked("/status")

    def _asked(self, target: str) -> Sent:
        return msgspec.json.decode(httpx2.get(f"{self.url}{target}", trust_env=False).content, type=Sent)


@contextmanager
def writer(folder: Path, name: str) -> Iterator[Writer]:
    port = free_port()
    command = [sys.executable, "-m", "bench.upstreams.writer", str(port)]
    with server(folder, name, command, port) as process:
        yield Writer(f"http://127.0.0.1:{port}", process)
