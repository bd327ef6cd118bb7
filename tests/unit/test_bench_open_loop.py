"""The open-loop sender against a server with a known stall: all that fell due in it shows. A closed loop hides it."""

import selectors
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bench.contest import Way
from bench.load import open as open_loop
from bench.machine import CannotRunError

STALL_S = 0.5
RATE = 200
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Server:
    """Answers at once, but for its first request, over which everything stands still for STALL_S."""

    def __init__(self) -> None:
        self.stall_ended_s = 0.0
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listening.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector, self._listening:
            selector.register(self._listening, selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in selector.select(0.05):
                    if key.fileobj is self._listening:
                        selector.register(self._listening.accept()[0], selectors.EVENT_READ)
                    else:
                        self._answer(selector, key.fileobj)
            for key in list(selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()

    def _answer(self, selector: selectors.BaseSelector, connection: object) -> None:
        assert isinstance(connection, socket.socket)
        if not connection.recv(65536):
            selector.unregister(connection)
            connection.close()
            return
        if not self.stall_ended_s:
            time.sleep(STALL_S)
            self.stall_ended_s = time.monotonic()
        connection.sendall(_ANSWER)


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def test_every_request_that_was_due_in_the_stall_has_waited_for_its_end(server: Server) -> None:
    answered = open_loop.run(_way(server), rate=RATE, seconds=1)
    in_the_stall = [one for one in answered if one.due_s < server.stall_ended_s]
    assert len(answered) == RATE
    assert len(in_the_stall) >= RATE * STALL_S
    assert all(one.done_s >= server.stall_ended_s for one in in_the_stall)
    # The three that were due first have waited for all of it but 10 ms, and p99 of 200 is no less than the third.
    assert open_loop.values(answered)["p99_ms"] >= (STALL_S - 0.01) * 1000


def test_a_closed_loop_asks_once_during_the_stall_and_so_its_p99_has_nothing_of_it(server: Server) -> None:
    sent_s = []
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        for _ in range(RATE):
            sent_s.append(time.monotonic())
            connection.sendall(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
            assert connection.recv(65536)
    assert len([one for one in sent_s if one < server.stall_ended_s]) == 1


def test_waiting_for_a_free_connection_is_in_the_latency_too(server: Server) -> None:
    answered = open_loop.run(_way(server), rate=RATE, seconds=1, connections=1)
    assert len([one for one in answered if one.due_s < server.stall_ended_s <= one.done_s]) >= RATE * STALL_S


def test_a_request_without_an_answer_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_loop, "PATIENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as nobody, pytest.raises(CannotRunError, match="5 of 5 requests"):
        open_loop.run(Way(f"http://127.0.0.1:{nobody.getsockname()[1]}/", "sk-none"), rate=RATE, seconds=5 / RATE)


@pytest.mark.parametrize(
    ("got", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-len", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
    ],
)
def test_where_an_answer_ends(got: bytes, whole: bool) -> None:
    assert open_loop.is_whole(got) is whole


def _way(server: Server) -> Way:
    return Way(f"http://127.0.0.1:{server.port}/v1/chat/completions", "sk-none")
