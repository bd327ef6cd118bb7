"""The ops address: metrics of all processes and workers in one scrape, and health."""

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from weir.children import Child


class QuietServer(uvicorn.Server):
    """uvicorn inside a loop that has its own signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Metrics:
    """The folder in which every process keeps its metrics, and their sum."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        self._folder = folder

    @property
    def env(self) -> dict[str, str]:
        return {"PROMETHEUS_MULTIPROC_DIR": str(self._folder)}

    def forget(self, pid: int) -> None:
        """Take a dead process's gauges out of the sum; its counters stay, because they happened."""
        mark_process_dead(pid, path=str(self._folder))  # type: ignore[no-untyped-call]

    def render(self) -> bytes:
        for file in self._folder.glob("gauge_live*.db"):
            pid = int(file.stem.rpartition("_")[2])
            if not _lives(pid):
                self.forget(pid)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._folder))  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def app(metrics: Metrics, children: Callable[[], list[Child]]) -> Starlette:
    """`/metrics`, `/healthz` (this answers) and `/readyz` (every process serves)."""

    async def scrape(_request: Request) -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        state = {child.name: _state(child) for child in children()}
        ready = bool(state) and all(word == "ready" for word in state.values())
        body = {"status": "ready" if ready else "not ready", "processes": state}
        return JSONResponse(body, status_code=200 if ready else 503)

    return Starlette(routes=[Route("/metrics", scrape), Route("/healthz", healthz), Route("/readyz", readyz)])


def _state(child: Child) -> str:
    if child.pid is None:
        return "down"
    return "ready" if child.is_ready.is_set() or not child.tells_ready else "starting"


def server(application: Starlette, sock: socket.socket) -> tuple[QuietServer, list[socket.socket]]:
    """The server for an ops socket; run it with `serve(sockets=...)`."""
    config = uvicorn.Config(
        application, http="httptools", ws="none", access_log=False, log_config=None, server_header=False, lifespan="off"
    )
    return QuietServer(config), [sock]
