"""`weir up`: everything on this machine; and each process on its own, with the same watching, metrics and stopping."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path

from ledger import log
from ledger.process import MISUSED, say, settings_or_exit
from ledger.settings import Address, Settings
from weir import demo, ops, stores
from weir.bundled import BundleError, Mongod, Valkey, free_port
from weir.children import Child, ChildFailed, Children
from weir.home import Home, HomeError
from weir.stores import StoreError

_READY_WITHIN_S = 30.0
_MISTAKES = (BundleError, ChildFailed, HomeError, StoreError)


class AddressTaken(Exception):
    """An address that is to be listened on cannot be; one line that says which setting names it."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked `weir up` for."""

    demo: bool
    as_json: bool


def listen(setting: str, address: Address) -> socket.socket:
    """A listening socket for an address of the settings; port 0 picks a free one."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address.host, address.port))
    except OSError as error:
        raise AddressTaken(
            f"{setting} {address} cannot be listened on ({error.strerror}); stop what has it, or choose another"
            " address (port 0 picks a free port)"
        ) from None
    sock.listen(2048)
    sock.setblocking(False)
    return sock


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def up(options: Options) -> int:
    """Run everything until a signal; the exit status."""
    settings = settings_or_exit()
    log.setup("up")
    try:
        asyncio.run(_Up(settings, options).run())
    except (*_MISTAKES, AddressTaken) as mistake:
        say(str(mistake))
        return MISUSED
    return 0


def alone(name: str) -> int:
    """Run one kind of process (gateway, ledger or admin) for a supervisor or container; the exit status."""
    needs = {
        "gateway": ("WEIR_REDIS_URL", "WEIR_MASTER_KEY"),
        "ledger": ("WEIR_REDIS_URL", "WEIR_MONGO_URL", "WEIR_MASTER_KEY"),
        "admin": ("WEIR_REDIS_URL", "WEIR_MONGO_URL", "WEIR_MASTER_KEY", "WEIR_ADMIN_TOKEN"),
    }
    settings = settings_or_exit(*needs[name])
    log.setup(name)
    try:
        asyncio.run(_alone(name, settings))
    except (*_MISTAKES, AddressTaken) as mistake:
        say(str(mistake))
        return MISUSED
    return 0


async def _alone(name: str, settings: Settings) -> None:
    folder = Path(tempfile.mkdtemp(prefix="weir-metrics-"))
    metrics = ops.Metrics(folder)
    children = Children(on_death=metrics.forget)
    stop = _signalled()
    try:
        async with _ops_server(metrics, children, settings):
            if name == "gateway":
                # Kept by its name: its workers inherit it, and it would be closed with its last one here.
                sock = listen("WEIR_GATEWAY_ADDR", settings.gateway_addr)
                own = gateway_workers(settings, sock, metrics.env)
            elif name == "ledger":
                own = [python_child("ledger", "ledger", metrics.env)]
            else:
                sock = listen("WEIR_ADMIN_ADDR", settings.admin_addr)
                own = [python_child("admin", "admin_api", metrics.env, sock)]
            try:
                for child in own:
                    await children.start(child)
                await _ready_or_stopped(children, own, stop)
                await stop.wait()
            finally:
                await children.stop(own)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _ready_or_stopped(children: Children, own: list[Child], stop: asyncio.Event) -> None:
    """A process whose stores are still away waits for them: only one that ends before it is ready is a failure."""
    for child in own:
        ready = asyncio.create_task(children.ready(child, within_s=365 * 86_400))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not ready.done():
            ready.cancel()
            return
        ready.result()


def _signalled() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup: the terminal goes and we stay
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    return stop


@contextlib.asynccontextmanager
async def _ops_server(metrics: ops.Metrics, children: Children, settings: Settings) -> AsyncIterator[str]:
    sock = listen("WEIR_OPS_ADDR", settings.ops_addr)
    server, sockets = ops.server(ops.app(metrics, lambda: children.all), sock)
    serving = asyncio.create_task(server.serve(sockets=sockets))
    try:
        yield url_of(sock)
    finally:
        server.should_exit = True
        await serving


def python_child(
    name: str, module: str, env: dict[str, str], sock: socket.socket | None = None, **more: object
) -> Child:
    """One of our own processes, run as a module."""
    command = [sys.executable, "-m", module]
    descriptor = None if sock is None else sock.fileno()
    return Child(name, command, env, listen_fd=descriptor, tells_ready=True, **more)  # type: ignore[arg-type]


def gateway_workers(settings: Settings, sock: socket.socket, env: dict[str, str], **more: object) -> list[Child]:
    """As many gateway workers as are asked for, on one socket."""
    grace_s = settings.grace_s + 15
    return [
        python_child(
            f"gateway-{n}" if settings.workers > 1 else "gateway", "gateway", env, sock, grace_s=grace_s, **more
        )
        for n in range(1, settings.workers + 1)
    ]


class _Up:
    """One run of `weir up`: what is started, in which order, and how it ends."""

    def __init__(self, settings: Settings, options: Options) -> None:
        self._settings = settings
        self._options = options
        self._home = Home(settings.data_dir)
        self._metrics = ops.Metrics(self._home.folder / "metrics")
        self._children = Children(on_death=self._metrics.forget)
        self._servers: list[Child] = []
        self._stores: list[Child] = []
        self._gateways: list[Child] = []
        self._provider: list[Child] = []

    async def run(self) -> None:
        stop = _signalled()
        settings = self._settings
        gateway_socket = listen("WEIR_GATEWAY_ADDR", settings.gateway_addr)
        admin_socket = listen("WEIR_ADMIN_ADDR", settings.admin_addr)
        try:
            async with _ops_server(self._metrics, self._children, settings) as ops_url:
                starting = asyncio.create_task(self._start(gateway_socket, admin_socket, ops_url))
                stopping = asyncio.create_task(stop.wait())
                await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    await asyncio.gather(starting, return_exceptions=True)
                else:
                    starting.result()
                await stopping
                say("stopping: letting requests finish, then closing the books")
        finally:
            await self._children.stop(self._gateways, [*self._servers, *self._provider], self._stores)

    async def _start(self, gateway_socket: socket.socket, admin_socket: socket.socket, ops_url: str) -> None:
        redis_url, mongo_url = await self._start_stores()
        token = self._home.secret("admin.token", self._settings.admin_token)
        admin_url = url_of(admin_socket)
        env = {
            **self._metrics.env,
            "WEIR_REDIS_URL": redis_url,
            "WEIR_MONGO_URL": mongo_url,
            "WEIR_DATA_DIR": str(self._home.folder),
            "WEIR_MASTER_KEY": self._master_key(),
            "WEIR_ADMIN_TOKEN": token,
            "WEIR_ADMIN_URL": admin_url,
        }
        if self._options.demo:
            env["WEIR_ALLOW_PRIVATE_UPSTREAMS"] = "on"
        self._home.write("admin.url", admin_url)
        say("starting the gateway, the ledger and the admin API")
        logs = self._home.logs
        ledger = python_child("ledger", "ledger", env, log_file=logs / "ledger.log")
        admin = python_child("admin", "admin_api", env, admin_socket, log_file=logs / "admin.log")
        self._servers = [admin, ledger]
        self._gateways = gateway_workers(self._settings, gateway_socket, env, log_file=logs / "gateway.log")
        provider = await self._start_provider() if self._options.demo else None
        for child in (*self._servers, *self._gateways):
            await self._children.start(child)
        for child in (*self._servers, *self._gateways):
            await self._children.ready(child, within_s=_READY_WITHIN_S)
        api_key = None
        if provider is not None:
            api_key = await demo.prepare(self._home, admin_url, token, provider)
        self._announce(url_of(gateway_socket), admin_url, ops_url, token, api_key)

    def _master_key(self) -> str:
        return self._home.secret("master.key", os.environ.get("WEIR_MASTER_KEY", "").strip())

    async def _start_stores(self) -> tuple[str, str]:
        """The stores' URLs, once both answer."""
        home, settings = self._home, self._settings
        redis_url, mongo_url = settings.redis_url, settings.mongo_url
        waits = []
        if redis_url:
            waits.append(stores.wait_for_redis(redis_url, patience_s=5))
        else:
            valkey = Valkey(home.folder / "valkey", home.port("valkey"))
            redis_url = valkey.url
            child = Child("valkey", valkey.command(), env=valkey.environment)
            waits.append(self._store("Valkey", child, stores.wait_for_redis(redis_url)))
        if mongo_url:
            waits.append(stores.wait_for_mongo(mongo_url, patience_s=5))
        else:
            mongod = Mongod(home.folder / "mongod", home.port("mongod"))
            mongo_url = mongod.url
            waits.append(self._store("MongoDB", Child("mongodb", mongod.command()), stores.make_primary(mongod)))
        await asyncio.gather(*waits)
        home.write("stores.json", json.dumps({"redis": redis_url, "mongo": mongo_url}))
        return redis_url, mongo_url

    async def _store(self, name: str, child: Child, wait: Awaitable[None]) -> None:
        say(f"starting the bundled {name}")
        child.log_file, child.grace_s = self._home.logs / f"{child.name}.out", 20
        self._stores.append(child)
        await self._children.start(child)
        await wait

    async def _start_provider(self) -> str:
        """The scripted provider of the demo, on any free port; its URL."""
        port = free_port()
        command = [sys.executable, "-m", "bench.provider", "--port", str(port), "--pace", "0.05"]
        child = Child("provider", command, log_file=self._home.logs / "provider.log")
        self._provider = [child]
        await self._children.start(child)
        return f"http://127.0.0.1:{port}"

    def _announce(self, gateway: str, admin: str, ops_url: str, token: str, api_key: str | None) -> None:
        if self._options.as_json:
            found = {"gateway": gateway, "admin": admin, "ops": ops_url, "admin_token": token}
            if api_key is not None:
                found["api_key"] = api_key
            print(json.dumps(found), flush=True)
            return
        rows = [("gateway", gateway), ("admin API", f"{admin}/docs"), ("metrics", f"{ops_url}/metrics")]
        rows += [("admin token", token), ("data", str(self._home.folder))]
        if api_key is not None:
            rows.append(("demo API key", api_key))
        print("Weir is ready.\n")
        for name, value in rows:
            print(f"  {name:<13} {value}")
        if api_key is not None:
            print(f"\n{demo.lines(gateway, api_key)}")
        print("\nCtrl-C stops everything.", flush=True)
