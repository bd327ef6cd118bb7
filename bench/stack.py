"""Weir itself: `weir up` in a directory that is thrown away, as its operator sees it."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import psutil
import redis

from bench.machine import START_TIMEOUT_S, CannotRunError, family, read_line, started
from ledger import compiled, keyspace

DRAIN_TIMEOUT_S = 60.0


class Stack:
    """A running Weir."""

    def __init__(self, root: psutil.Process, urls: dict[str, str], data: Path) -> None:
        self.gateway_url = urls["gateway"]
        self.data = data
        self.stores = {name: str(url) for name, url in json.loads((data / "stores.json").read_text()).items()}
        self._root = root
        self._redis = redis.Redis.from_url(self.stores["redis"])
        self._admin = httpx2.Client(
            base_url=f"{urls['admin']}/v1",
            headers={"authorization": f"Bearer {urls['admin_token']}"},
            timeout=60.0,
            trust_env=False,
        )

    def environment(self, **more: str) -> dict[str, str]:
        """For another of Weir's commands on the same books."""
        key = (self.data / "master.key").read_text().strip()
        stores = {"WEIR_REDIS_URL": self.stores["redis"], "WEIR_MONGO_URL": self.stores["mongo"]}
        return {**environment(self.data), **stores, "WEIR_MASTER_KEY": key, **more}

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return _checked(self._admin.post(path, json=body, headers={"idempotency-key": str(uuid.uuid4())}))

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return _checked(self._admin.put(path, json=body))

    def get(self, path: str) -> dict[str, Any]:
        return _checked(self._admin.get(path))

    def workers(self) -> list[psutil.Process]:
        """The gateway's worker processes: those that listen on its port and have no child that does."""
        return workers(self._root, self.gateway_url)

    def redis_server(self) -> list[psutil.Process]:
        return [process for process in family(self._root) if process.name().startswith(("valkey", "redis"))]

    def ledger(self) -> list[psutil.Process]:
        return [process for process in family(self._root) if process.cmdline()[1:3] == ["-m", "ledger"]]

    @contextmanager
    def ledger_asleep(self) -> Iterator[None]:
        """It is stopped (SIGSTOP): events wait in Redis."""
        asleep = self.ledger()
        for process in asleep:
            process.suspend()
        try:
            yield
        finally:
            for process in asleep:
                process.resume()

    def waiting(self) -> int:
        """Events that wait for MongoDB, and holds of requests that have not ended."""
        asked = self._redis.pipeline(transaction=False)
        for partition in keyspace.PARTITIONS:
            asked.xlen(keyspace.usage(partition))
            asked.zcard(keyspace.due(partition))
        return sum(asked.execute())

    def wait_until_drained(self, *, patience_s: float = DRAIN_TIMEOUT_S) -> None:
        """Until nothing waits, so that the ledger is not at work while something else is measured."""
        deadline = time.monotonic() + patience_s
        while self.waiting():
            if time.monotonic() > deadline:
                raise CannotRunError(f"usage events still wait for MongoDB {patience_s:.0f} s after the load")
            time.sleep(0.1)

    def wait_until_written(self, *, patience_s: float = 120.0) -> None:
        """Until MongoDB has what waits now; one stream is looked at at a time, to leave the core to those that write."""
        deadline = time.monotonic() + patience_s
        for partition in keyspace.PARTITIONS:
            while self._redis.xlen(keyspace.usage(partition)):
                if time.monotonic() > deadline:
                    raise CannotRunError(f"usage events still wait for MongoDB after {patience_s:.0f} s")
                time.sleep(0.005)

    def close(self) -> None:
        self._admin.close()
        self._redis.close()


def workers(root: psutil.Process, url: str) -> list[psutil.Process]:
    """Which of a family of processes answer at this URL."""
    port = int(url.rsplit(":", 1)[1])
    listening = [process for process in family(root) if _listens(process, port)]
    parents = {process.ppid() for process in listening}
    found = [process for process in listening if process.pid not in parents]
    if not found:
        raise CannotRunError("no process of Weir listens on the gateway's port")
    return found


def environment(data: Path) -> dict[str, str]:
    """Weir's settings, and nothing of the caller's own."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("WEIR_")},
        "WEIR_GATEWAY_ADDR": "127.0.0.1:0",
        "WEIR_ADMIN_ADDR": "127.0.0.1:0",
        "WEIR_OPS_ADDR": "127.0.0.1:0",
        "WEIR_ALLOW_PRIVATE_UPSTREAMS": "1",
        "WEIR_COMPILED": "1" if compiled.modules() else "0",
        "WEIR_DATA_DIR": str(data),
    }


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """`weir up` for as long as the block."""
    data, log = folder / "weir", folder / "weir.err"
    command = [sys.executable, "-m", "weir", "up", "--json"]
    with (
        log.open("wb") as errors,
        started(command, environment=environment(data), stdout=subprocess.PIPE, log=errors) as child,
    ):
        line = read_line(child, START_TIMEOUT_S)
        try:
            urls = json.loads(line)
        except ValueError:
            said = log.read_text().strip().splitlines()
            raise CannotRunError(f"`weir up` did not start: {said[-1] if said else 'it says nothing'}") from None
        stack = Stack(psutil.Process(child.pid), urls, data)
        try:
            yield stack
        finally:
            stack.close()


def _checked(answer: httpx2.Response) -> dict[str, Any]:
    if not answer.is_success:
        request = answer.request
        raise CannotRunError(f"{request.method} {request.url.path}: {answer.status_code} {answer.text[:300]}")
    value: dict[str, Any] = msgspec.json.decode(answer.content)
    return value


def _listens(process: psutil.Process, port: int) -> bool:
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for connection in process.net_connections(kind="tcp")
    )
