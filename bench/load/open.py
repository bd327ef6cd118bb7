"""Open-loop load: requests leave by a fixed schedule, whatever the answers do.

Latency counts from the moment at which a request was due. A closed loop (wrk) waits for an answer before it asks again, so
a server that stalls is asked less often just then, and its p99 looks well: coordinated omission. Here every request that
falls due during a stall is in the result with all of its waiting, also the waiting for a free connection.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from statistics import quantiles
from typing import NamedTuple
from urllib.parse import urlsplit

from bench.contest import Way
from bench.machine import CannotRunError

PATIENCE_S = 30.0
MOST_CONNECTIONS = 512


class Answered(NamedTuple):
    """One request's life, on the monotonic clock."""

    due_s: float
    sent_s: float
    done_s: float
    ok: bool

    @property
    def latency_s(self) -> float:
        return self.done_s - self.due_s


class _Connection:
    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due_s = self.sent_s = 0.0
        self.got = b""


def run(way: Way, *, rate: float, seconds: float, connections: int = MOST_CONNECTIONS) -> list[Answered]:
    """Send rate x seconds requests, each when it is due; in the order of their answers."""
    sender = _Sender(way, connections)
    try:
        return sender.run(rate, round(rate * seconds))
    finally:
        sender.close()


def values(answered: Sequence[Answered]) -> dict[str, float]:
    """As the results keep it; `late` is how far the sender itself was behind its schedule."""
    latencies = sorted(one.latency_s * 1000 for one in answered)
    late = sorted((one.sent_s - one.due_s) * 1000 for one in answered)
    hundredths = quantiles(latencies, n=100, method="inclusive")
    return {
        "requests": len(answered),
        "p50_ms": hundredths[49],
        "p99_ms": hundredths[98],
        "max_ms": latencies[-1],
        "late_p99_ms": quantiles(late, n=100, method="inclusive")[98],
    }


class _Sender:
    def __init__(self, way: Way, most: int) -> None:
        parts = urlsplit(way.url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._request = _request(way, parts.netloc, parts.path)
        self._most = most
        self._epoll = select.epoll()
        self._all: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._due: deque[float] = deque()
        self._answered: list[Answered] = []

    def run(self, rate: float, total: int) -> list[Answered]:
        start = time.monotonic() + 0.01
        planned = 0
        while len(self._answered) < total:
            now = time.monotonic()
            while planned < total and start + planned / rate <= now:
                self._due.append(start + planned / rate)
                planned += 1
            self._send_what_is_due()
            wait_s = PATIENCE_S if planned == total else start + planned / rate - time.monotonic()
            # epoll_wait counts in milliseconds, select in microseconds; an epoll set is itself a descriptor to select.
            ready = select.select([self._epoll], [], [], max(wait_s, 0))[0]
            if not ready and planned == total:
                raise CannotRunError(f"{total - len(self._answered)} of {total} requests got no answer")
            for descriptor, _ in self._epoll.poll(0):
                self._read(self._all[descriptor])
        return self._answered

    def close(self) -> None:
        for connection in self._all.values():
            connection.socket.close()
        self._epoll.close()

    def _send_what_is_due(self) -> None:
        while self._due and (self._idle or len(self._all) < self._most):
            connection = self._idle.pop() if self._idle else self._connect()
            connection.due_s, connection.sent_s, connection.got = self._due.popleft(), time.monotonic(), b""
            connection.socket.sendall(self._request)

    def _connect(self) -> _Connection:
        connection = _Connection(self._address)
        self._all[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, select.EPOLLIN)
        return connection

    def _read(self, connection: _Connection) -> None:
        data = connection.socket.recv(65536)
        connection.got += data
        if not data:
            self._ended(connection)
        elif is_whole(connection.got):
            self._note(connection, ok=connection.got[9:12] == b"200")
            self._idle.append(connection)

    def _ended(self, connection: _Connection) -> None:
        """The server closed: an answer that was on its way is broken, an idle connection is only gone."""
        if connection in self._idle:
            self._idle.remove(connection)
        else:
            self._note(connection, ok=False)
        del self._all[connection.socket.fileno()]
        connection.socket.close()

    def _note(self, connection: _Connection, *, ok: bool) -> None:
        self._answered.append(Answered(connection.due_s, connection.sent_s, time.monotonic(), ok))


def _request(way: Way, host: str, path: str) -> bytes:
    body = way.body()
    given = {
        "Host": host,
        "Content-Type": "application/json",
        "Authorization": f"Bearer {way.key}",
        "Content-Length": str(len(body)),
        **way.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def is_whole(got: bytes) -> bool:
    """Whether this is all of an answer, head and body."""
    head, separator, body = got.partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return body.endswith(b"0\r\n\r\n")
