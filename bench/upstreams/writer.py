"""A bare asyncio server that only writes streams: what others relay, and their floor. Takes a port.

`GET /set?chunks=100&pace_ms=20` says what every stream is, also those that are open; `GET /status` what was sent so far.
"""

import asyncio
import json
import sys
from typing import cast
from urllib.parse import parse_qs, urlsplit

import uvloop

PROMPT_TOKENS = 19
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_COMMON = (
    b'data: {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":1741569952,"model":"gpt-4.1","choices":['
)
CHUNK = _COMMON + b'{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}]}\n\n'
_STOP = _COMMON + b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'


def ending(chunks: int) -> bytes:
    """What ends a stream of so many chunks: the reason, the usage, and the word for it."""
    usage = (
        f'],"usage":{{"prompt_tokens":{PROMPT_TOKENS},"completion_tokens":{chunks},'
        f'"total_tokens":{PROMPT_TOKENS + chunks}}}}}\n\n'
    )
    return _STOP + _COMMON + usage.encode() + b"data: [DONE]\n\n"


class Counts:
    """Of this process; one chunk is one completion token."""

    chunks_each = 100
    pace_s = 0.02
    started = 0
    finished = 0
    chunks = 0


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self.unread = b""
        self.writing: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        self.unread += data
        end = self.unread.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        total = end + _content_length(self.unread[:end])
        if len(self.unread) < total:
            return
        head, self.unread = self.unread[:end], self.unread[total:]
        if head.startswith(b"GET "):
            self.transport.write(_control(head.split(b" ", 2)[1].decode()))
        else:
            self.writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        chunks, framed = 0, _framed(CHUNK)
        Counts.started += 1
        self.transport.write(_HEAD)
        while chunks < Counts.chunks_each:  # which may change meanwhile, and end a stream that had no end
            await asyncio.sleep(Counts.pace_s)
            if self.transport.is_closing():
                return
            self.transport.write(framed)
            Counts.chunks += 1
            chunks += 1
        self.transport.write(_framed(ending(chunks)) + b"0\r\n\r\n")
        Counts.finished += 1


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _control(target: str) -> bytes:
    parts = urlsplit(target)
    if parts.path == "/set":
        asked = parse_qs(parts.query)
        Counts.chunks_each, Counts.pace_s = int(asked["chunks"][0]), float(asked["pace_ms"][0]) / 1000
    counts = {"started": Counts.started, "finished": Counts.finished, "chunks": Counts.chunks}
    body = json.dumps(counts).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
