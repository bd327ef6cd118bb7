"""The books through a Sentinel promotion: the primary is killed under load, and nothing is lost or doubled."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from gateway.settler import Settler
from gateway.spill import Spill
from ledger import publish
from ledger.cold import ColdBook
from ledger.connections import client, close_pool
from ledger.link import Link
from ledger.vault import Vault
from ledger.worker import Worker
from tests.conftest import wait_until
from tests.integration.test_cluster import Load, check, count, left, make_accounts
from tests.stack import eventually
from weir.bundled import Valkey, free_port, leashed, valkey_binary

_SENTINELS = 3


@dataclass
class Guarded:
    """A primary, its replica, and the sentinels that watch them."""

    servers: list[Valkey]
    processes: list[subprocess.Popen[bytes]]
    sentinels: list[int]

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in self.sentinels) + "/weir"

    def kill(self, n: int) -> None:
        self.processes[n].kill()
        self.processes[n].wait()

    def start(self, n: int) -> None:
        command = leashed(self.servers[n].command())
        self.processes[n] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _role(port: int) -> str:
    asking: Redis = Redis(port=port, socket_timeout=2, decode_responses=True)
    try:
        info = asking.info("replication")
        return f"{info['role']} {info.get('master_link_status', '')}"
    except RedisError:
        return "down"
    finally:
        asking.close()


def _watched(port: int) -> bool:
    """Whether a sentinel knows the replica and the other sentinels."""
    asking: Redis = Redis(port=port, socket_timeout=2, decode_responses=True)
    try:
        state = asking.sentinel_master("weir")
        return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == _SENTINELS - 1)  # type: ignore[index]
    except RedisError:
        return False
    finally:
        asking.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    primary, follower = free_port(), free_port()
    follow = ("--replicaof", f"127.0.0.1 {primary}", "--repl-diskless-sync-delay", "0")
    servers = [
        Valkey(tmp_path / "a", primary, ("--repl-diskless-sync-delay", "0")),
        Valkey(tmp_path / "b", follower, follow),
    ]
    with contextlib.ExitStack() as stack:
        running = Guarded(servers, [], [])
        for server in servers:
            command = leashed(server.command())
            running.processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for n in range(2):
            stack.callback(running.kill, n)
        wait_until(lambda: _role(primary).startswith("master"), why="for the primary")
        wait_until(lambda: _role(follower) == "slave up", why="for the replica")
        for n in range(_SENTINELS):
            port = free_port()
            config = tmp_path / f"sentinel{n}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\nsentinel monitor weir 127.0.0.1 {primary} 2\n"
                "sentinel down-after-milliseconds weir 700\nsentinel failover-timeout weir 5000\n"
            )
            words = [str(valkey_binary()), str(config), "--sentinel", "--logfile", str(tmp_path / f"sentinel{n}.log")]
            process = subprocess.Popen(leashed(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(lambda process=process: (process.kill(), process.wait()))  # type: ignore[misc]
            running.sentinels.append(port)
        wait_until(lambda: all(_watched(port) for port in running.sentinels), why="for the sentinels")
        yield running


async def test_a_promotion_under_load(guarded: Guarded, cold: ColdBook, vault: Vault, tmp_path: Path) -> None:
    await publish.ensure_pepper(cold, vault)
    reader = client(guarded.url, timeout_s=5)
    async with (
        Link(guarded.url, deadline_s=3) as redis,
        Link(guarded.url, deadline_s=3) as barriers,
        Link(guarded.url, deadline_s=5) as own,
    ):
        ready = asyncio.Event()
        worker = Worker(cold, own, reader, on_ready=ready.set)
        working = asyncio.create_task(worker.run())
        await asyncio.wait_for(ready.wait(), 30)
        await make_accounts(cold, redis)
        settler = Settler(redis, spill=Spill(tmp_path / "spill"), replicas=1, barriers=barriers)
        settler.start()
        load = Load(redis, settler)
        running = asyncio.create_task(load.run(seed=11))
        await eventually(lambda: count(load), lambda n: n > 300)
        await asyncio.to_thread(guarded.kill, 0)
        promoted = guarded.servers[1].port
        await eventually(lambda: asyncio.to_thread(_role, promoted), lambda role: role.startswith("master"), seconds=90)
        # The killed one comes back, and follows: without a replica what the new primary acknowledges is only kept.
        await asyncio.to_thread(guarded.start, 0)
        before = len(load.settled)
        await eventually(lambda: count(load), lambda n: n > before + 300, seconds=90)
        assert load.refused, "the kill was under load"
        load.stop()
        await running
        await eventually(lambda: left(settler), lambda n: n == 0, seconds=60)
        await check(cold, redis, load)
        assert await settler.close(5) == 0
        worker.stop()
        await working
    await close_pool(reader.connection_pool)
