"""The proxy that one writes first: a Starlette route, one httpx2 client, a StreamingResponse. No keys, no metering."""

import importlib.metadata
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from bench.contest import Contestant, Upstreams, Way
from bench.machine import family, free_port, server

_CONNECTIONS = httpx2.Limits(max_connections=4096, max_keepalive_connections=4096)


@contextmanager
def run(folder: Path, upstreams: Upstreams) -> Iterator[Contestant]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "bench.contestants.naive:app", "--port", str(port)]
    environment = {**os.environ, "BENCH_PLAIN": upstreams.plain, "BENCH_STREAM": upstreams.stream}
    quiet = ["--no-access-log", "--log-level", "error", "--backlog", "4096"]
    with server(folder, "naive", [*command, *quiet], port, environment=environment) as process:
        url, key = f"http://127.0.0.1:{port}", "sk-none"
        yield Contestant(
            "naive",
            f"starlette {importlib.metadata.version('starlette')}, httpx2 {importlib.metadata.version('httpx2')}",
            Way(f"{url}/plain/v1/chat/completions", key),
            Way(f"{url}/stream/v1/chat/completions", key),
            family(process),
            rests=True,
        )


def app() -> Starlette:
    """What uvicorn serves: `/plain/...` and `/stream/...` go to the one upstream and the other."""
    clients: dict[str, httpx2.AsyncClient] = {}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        for name in ("plain", "stream"):
            base = os.environ[f"BENCH_{name.upper()}"]
            clients[name] = httpx2.AsyncClient(base_url=base, limits=_CONNECTIONS, timeout=600, trust_env=False)
        yield
        for client in clients.values():
            await client.aclose()

    async def forward(request: Request) -> StreamingResponse:
        client = clients[request.path_params["to"]]
        asked = client.build_request(
            request.method,
            f"/{request.path_params['rest']}",
            content=await request.body(),
            headers={"content-type": "application/json", "authorization": "Bearer sk-up"},
        )
        answer = await client.send(asked, stream=True)
        return StreamingResponse(
            answer.aiter_raw(),
            status_code=answer.status_code,
            headers={"content-type": answer.headers["content-type"]},
            background=BackgroundTask(answer.aclose),
        )

    return Starlette(routes=[Route("/{to}/{rest:path}", forward, methods=["POST"])], lifespan=lifespan)
