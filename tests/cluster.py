"""A real Valkey Cluster on loopback: three primaries, each with a replica."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis

from tests.conftest import wait_until
from weir.bundled import Valkey, free_port, leashed

_PRIMARIES = 3
_OPTIONS = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0",
            "--repl-diskless-sync-delay", "0")  # fmt: skip


@dataclass
class Node:
    """One server of the cluster."""

    server: Valkey
    process: subprocess.Popen[bytes]

    def ask(self, *words: object) -> Any:
        client: Redis = Redis(port=self.server.port, socket_timeout=5, decode_responses=True, protocol=2)
        try:
            return client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            client.close()

    @property
    def id(self) -> str:
        return str(self.ask("CLUSTER", "MYID"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Come back with what was on disk; the cluster makes it a replica of whoever took over."""
        self.process = subprocess.Popen(
            leashed(self.server.command()), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


@dataclass
class Cluster:
    """Six nodes; the first three began as primaries, and node n + 3 follows node n."""

    nodes: list[Node]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.server.port}" for node in self.nodes)

    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.process.poll() is None]

    def owner(self, slot: int) -> Node:
        for first, last, primary, *_ in self.alive()[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.server.port == primary[1])
        raise AssertionError(f"nobody owns slot {slot}")

    def move(self, slot: int, source: Node, target: Node) -> None:
        """Move a slot the way operators' tools do, key by key, under whatever load there is."""
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.ask("MIGRATE", "127.0.0.1", target.server.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *self.alive()):
            with contextlib.suppress(Exception):  # replicas refuse; they learn it from their primary
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)


@contextlib.contextmanager
def valkey_cluster(folder: Path) -> Iterator[Cluster]:
    """Start it, and wait until every node says that the cluster is whole."""
    nodes: list[Node] = []
    try:
        for n in range(2 * _PRIMARIES):
            nodes.append(_started(folder / str(n)))  # noqa: PERF401 - one that fails leaves the others to be ended
        _join(nodes)
        yield Cluster(nodes)
    finally:
        for node in nodes:
            node.kill()


def _started(folder: Path) -> Node:
    """A node on two ports that were free; where somebody was quicker and it ended for that, on two others."""
    for attempt in range(5):
        # The bus's usual port is 10,000 above, which is no port for most that are free.
        options = (*_OPTIONS, "--cluster-port", str(free_port()))
        server = Valkey(folder / str(attempt), free_port(), options)
        process = subprocess.Popen(leashed(server.command()), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        node = Node(server, process)
        wait_until(partial(_ended_or_answers, node), why="for a cluster node")
        if process.poll() is None:
            return node
    raise AssertionError(f"no cluster node starts; see {server.folder}/valkey.log")


def _join(nodes: list[Node]) -> None:
    primaries, replicas = nodes[:_PRIMARIES], nodes[_PRIMARIES:]
    bounds = [16384 * n // _PRIMARIES for n in range(_PRIMARIES + 1)]
    for n, primary in enumerate(primaries):
        primary.ask("CLUSTER", "ADDSLOTSRANGE", bounds[n], bounds[n + 1] - 1)
        primary.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
    for node in nodes[1:]:
        node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].server.port, nodes[0].server.extra[-1])
    wait_until(lambda: all(_knows(node, len(nodes)) for node in nodes), why="for the nodes to meet")
    for primary, replica in zip(primaries, replicas, strict=True):
        replica.ask("CLUSTER", "REPLICATE", primary.id)
    wait_until(lambda: all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes), why="for the cluster")
    wait_until(lambda: all(_follows(node) for node in replicas), why="for replicas")


def _ended_or_answers(node: Node) -> bool:
    return node.process.poll() is not None or _answers(node)


def _answers(node: Node) -> bool:
    try:
        return bool(node.ask("PING"))
    except OSError:
        return False
    except Exception as error:
        if type(error).__name__ in ("ConnectionError", "BusyLoadingError", "TimeoutError"):
            return False
        raise


def _knows(node: Node, count: int) -> bool:
    lines = str(node.ask("CLUSTER", "NODES")).strip().splitlines()
    return len(lines) == count and not any("handshake" in line for line in lines)


def _follows(node: Node) -> bool:
    return bool(node.ask("INFO", "replication")["master_link_status"] == "up")  # the driver makes a dict of it
