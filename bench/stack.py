"""Weir itself: `weir up` in a directory that is thrown away, and an account, an upstream, a model and a key in it."""

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

from bench.load import Target
from bench.machine import CannotRunError, read_line, started

MODEL = "gpt-4.1"
INPUT_NANOS = 2_000  # a token; $2 a million
OUTPUT_NANOS = 8_000
GRANT_USD = "1000000.00"
LIMITS = {"requests_per_minute": 60_000_000, "tokens_per_minute": 1_000_000_000, "concurrency": 10_000}
START_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 30.0
PAGE = 500


class Stack:
    """A running Weir, as its operator sees it."""

    def __init__(self, root: psutil.Process, urls: dict[str, str]) -> None:
        self.gateway_url = urls["gateway"]
        self._ops_url = urls["ops"]
        self._root = root
        self.admin = httpx2.Client(
            base_url=f"{urls['admin']}/v1",
            headers={"authorization": f"Bearer {urls['admin_token']}"},
            timeout=60.0,
            trust_env=False,
        )
        self.account = ""

    def furnish(self, upstream_url: str) -> Target:
        """What one caller needs; answers what to load."""
        self.account = self._post("/accounts", {"name": "bench", "limits": LIMITS})["id"]
        self._post(f"/accounts/{self.account}/grants", {"amount_usd": GRANT_USD, "kind": "top_up"})
        upstream = {"name": "nginx", "provider": "openai_compatible", "base_url": f"{upstream_url}/v1"}
        self._post("/upstreams", {**upstream, "credential": "sk-bench"})
        model = {
            "upstreams": [{"upstream": "nginx", "model": MODEL}],
            "price": {
                "input_per_million_usd": _per_million_usd(INPUT_NANOS),
                "output_per_million_usd": _per_million_usd(OUTPUT_NANOS),
            },
            "max_output_tokens": 32_768,
        }
        self._checked(self.admin.put(f"/models/{MODEL}", json=model))
        key = self._post(f"/accounts/{self.account}/api-keys", {"name": "bench"})["key"]
        return Target("weir", f"{self.gateway_url}/openai", self.workers(), key)

    def workers(self) -> list[psutil.Process]:
        """The gateway's worker processes: those that listen on its port and have no child that does."""
        port = int(self.gateway_url.rsplit(":", 1)[1])
        family = [self._root, *self._root.children(recursive=True)]
        listening = [process for process in family if _listens(process, port)]
        parents = {process.ppid() for process in listening}
        workers = [process for process in listening if process.pid not in parents]
        if not workers:
            raise CannotRunError("no process of `weir up` listens on the gateway's port")
        return workers

    def stores(self) -> list[psutil.Process]:
        """Redis, if it is ours."""
        family = self._root.children(recursive=True)
        return [process for process in family if process.name().startswith(("valkey", "redis"))]

    def wait_until_drained(self) -> None:
        """Until no event waits for MongoDB, so that the ledger is not at work while something else is measured."""
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._backlog() == 0 and self.balance()["held_nanos"] == 0:
                return
            time.sleep(0.3)
        raise CannotRunError(f"usage events still wait for MongoDB {DRAIN_TIMEOUT_S:.0f} s after the load")

    def balance(self) -> dict[str, int]:
        answer = self._checked(self.admin.get(f"/accounts/{self.account}"))
        balance: dict[str, int] = answer["balance"]
        return balance

    def events(self) -> Iterator[dict[str, Any]]:
        """Every usage event of the account, page by page."""
        query: dict[str, Any] = {"limit": PAGE}
        while True:
            page = self._checked(self.admin.get(f"/accounts/{self.account}/usage", params=query))
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def _backlog(self) -> float:
        page = httpx2.get(f"{self._ops_url}/metrics", trust_env=False).text
        lines = [line for line in page.splitlines() if line.startswith("weir_ledger_backlog")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._checked(self.admin.post(path, json=body, headers={"idempotency-key": str(uuid.uuid4())}))

    def _checked(self, answer: httpx2.Response) -> dict[str, Any]:
        if not answer.is_success:
            request = answer.request
            raise CannotRunError(f"{request.method} {request.url.path}: {answer.status_code} {answer.text[:300]}")
        value: dict[str, Any] = msgspec.json.decode(answer.content)
        return value


@contextmanager
def weir(folder: Path) -> Iterator[Stack]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WEIR_")},
        "WEIR_GATEWAY_ADDR": "127.0.0.1:0",
        "WEIR_ADMIN_ADDR": "127.0.0.1:0",
        "WEIR_OPS_ADDR": "127.0.0.1:0",
        "WEIR_ALLOW_PRIVATE_UPSTREAMS": "1",
        "WEIR_DATA_DIR": str(folder / "weir"),
    }
    log = folder / "weir.err"
    with (
        log.open("wb") as errors,
        started(
            [sys.executable, "-m", "weir", "up", "--json"],
            environment=environment,
            stdout=subprocess.PIPE,
            log=errors,
        ) as child,
    ):
        line = read_line(child, START_TIMEOUT_S)
        try:
            urls = json.loads(line)
        except ValueError:
            said = log.read_text().strip().splitlines()
            raise CannotRunError(f"`weir up` did not start: {said[-1] if said else 'it says nothing'}") from None
        stack = Stack(psutil.Process(child.pid), urls)
        with stack.admin:
            yield stack


def _per_million_usd(nanos_per_token: int) -> str:
    return f"{nanos_per_token / 1000:.2f}"


def _listens(process: psutil.Process, port: int) -> bool:
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for connection in process.net_connections(kind="tcp")
    )
