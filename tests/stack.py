"""Everything running, as a user runs it: `weir up` as a process, driven from outside over HTTP."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil

T = TypeVar("T")

WEIR = [sys.executable, "-m", "weir"]
PRICE = {"input_per_million_usd": "2.5", "output_per_million_usd": "10", "cached_input_per_million_usd": "1.25"}


async def eventually(ask: Callable[[], Awaitable[T]], until: Callable[[T], bool], *, seconds: float = 60) -> T:
    """Ask until the answer is right; fail with the last one."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        found = await ask()
        if until(found):
            return found
        if loop.time() > end:
            raise AssertionError(f"waited {seconds} s in vain; the last answer was {found!r}")
        await asyncio.sleep(0.02)


def http(**more: Any) -> httpx2.AsyncClient:
    """A client without the certificates that loopback does not need, and that take 20 ms to load."""
    return httpx2.AsyncClient(verify=False, **{"timeout": 30, **more})


def environment(folder: Path, **more: str) -> dict[str, str]:
    """A clean environment for a Weir of its own on free ports."""
    kept = {n: value for n, value in os.environ.items() if n == "WEIR_COMPILED" or not n.startswith("WEIR_")}
    return {
        **kept,
        "WEIR_DATA_DIR": str(folder),
        "WEIR_GATEWAY_ADDR": "127.0.0.1:0",
        "WEIR_ADMIN_ADDR": "127.0.0.1:0",
        "WEIR_OPS_ADDR": "127.0.0.1:0",
        "WEIR_ALLOW_PRIVATE_UPSTREAMS": "on",
        **more,
    }


@dataclass
class Customer:
    """An account with a key."""

    id: str
    key: str
    key_id: str


class Stack:
    """A running Weir."""

    def __init__(self, process: subprocess.Popen[str], info: dict[str, str], env: dict[str, str]) -> None:
        self.process = process
        self.env = env
        self.gateway = info["gateway"]
        self.admin = info["admin"]
        self.ops = info["ops"]
        self.token = info["admin_token"]
        self.api_key = info.get("api_key", "")

    @property
    def base_url(self) -> str:
        return f"{self.gateway}/openai/v1"

    @property
    def stores(self) -> dict[str, str]:
        """The URLs of its own stores: `redis` and `mongo`."""
        return dict(json.loads((Path(self.env["WEIR_DATA_DIR"]) / "stores.json").read_text()))

    @property
    def master_key(self) -> str:
        return (Path(self.env["WEIR_DATA_DIR"]) / "master.key").read_text().strip()

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The admin API's answer; an error fails the test with its text."""
        async with http(base_url=f"{self.admin}/v1") as client:
            auth = {"authorization": f"Bearer {self.token}"}
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            response = await client.request(method, path, json=body, headers=auth | named)
        assert response.status_code < 400, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    async def customer(self, credit_usd: str = "10", key: dict[str, Any] | None = None, **limits: int) -> Customer:
        """A new account with credit and a key."""
        account = await self.ask("POST", "/accounts", {"name": "test", "limits": limits})
        if Decimal(credit_usd):
            grant = {"amount_usd": credit_usd, "kind": "top_up"}
            await self.ask("POST", f"/accounts/{account['id']}/grants", grant, idempotency_key=uuid.uuid4().hex)
        made = await self.ask("POST", f"/accounts/{account['id']}/api-keys", {"name": "test", **(key or {})})
        return Customer(account["id"], made["key"], made["id"])

    async def model(self, provider_url: str, *, name: str = "", target: str = "", **more: Any) -> str:
        """A new model on a new upstream."""
        name = name or f"m-{uuid.uuid4().hex[:8]}"
        upstream = {
            "name": f"u-{uuid.uuid4().hex[:8]}",
            "provider": "openai",
            "base_url": f"{provider_url}/v1",
            "credential": "sk-upstream",
            **more.pop("upstream", {}),
        }
        await self.ask("POST", "/upstreams", upstream)
        model = {
            "upstreams": [{"upstream": upstream["name"], "model": target or name}],
            "price": PRICE,
            "max_output_tokens": 4096,
            "max_input_tokens": 128_000,
            **more,
        }
        await self.ask("PUT", f"/models/{name}", model)
        return name

    async def upstream(self, name: str) -> dict[str, Any]:
        """What the admin API says of an upstream."""
        cursor = ""
        while True:
            page = await self.ask("GET", f"/upstreams?limit=200{cursor}")
            for each in page["items"]:
                if each["name"] == name:
                    return dict(each)
            assert page["next_cursor"], f"no upstream is called {name}"
            cursor = f"&cursor={page['next_cursor']}"

    async def balance(self, account: str) -> dict[str, int]:
        found = await self.ask("GET", f"/accounts/{account}")
        return dict(found["balance"])

    async def events(self, account: str, count: int) -> list[dict[str, Any]]:
        """An account's usage events, once there are as many."""

        async def ask() -> list[dict[str, Any]]:
            return list((await self.ask("GET", f"/accounts/{account}/usage?limit=200"))["items"])

        return await eventually(ask, lambda found: len(found) >= count)

    async def metrics(self) -> str:
        async with http() as client:
            return str((await client.get(f"{self.ops}/metrics")).text)

    def audit(self) -> dict[str, Any]:
        """`weir audit --json`, which must say that the books agree."""
        command = [*WEIR, "audit", "--json"]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        report = dict(json.loads(done.stdout)) if done.stdout else {}
        assert done.returncode == 0, f"the books differ: {report} {done.stderr}"
        return report

    async def settled(self, account: str) -> dict[str, int]:
        """The balance, once nothing is held."""
        return await eventually(lambda: self.balance(account), lambda b: b["held_nanos"] == 0)

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, module: str) -> psutil.Process:
        """The one child that runs this module or program."""
        found = [p for p in self.processes() if any(module in word for word in p.cmdline())]
        assert len(found) == 1, [p.cmdline() for p in self.processes()]
        return found[0]

    def stop(self, number: int = signal.SIGTERM, *, within_s: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(within_s)


def start(env: dict[str, str], *arguments: str) -> Stack:
    """Start `weir up --json` and wait for its line."""
    process = subprocess.Popen(
        [*WEIR, "up", "--json", *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"weir up did not start: {process.stderr.read()}")
    return Stack(process, json.loads(line), env)


@contextmanager
def running_stack(folder: Path, *arguments: str, **more: str) -> Iterator[Stack]:
    """A Weir of its own for as long as the block."""
    stack = start(environment(folder, **more), *arguments)
    try:
        yield stack
    finally:
        if stack.process.poll() is None:
            stack.stop()
        for pipe in (stack.process.stdout, stack.process.stderr):
            if pipe is not None:
                pipe.close()
