"""What the request path does most, shown to the compiler: a demo of Weir that serves some thousand requests.

The compiler then knows which branches are taken and which code belongs together (profile-guided optimisation): a request
misses the instruction cache less often (docs/performance.md).
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ledger import compiled

PACKAGES = ("admin_api", "bench", "gateway", "ledger", "native", "weir")
CALLERS = 16
_EACH = 200
_STREAMED = 4  # one of so many
_STARTS_WITHIN_S = 120.0
_ENDS_WITHIN_S = 60.0
_WAITS_S = 60.0
# What has counted writes it down when the process ends by itself; uvicorn ends one by the signal that it was sent.
_ENDS_BY_ITSELF = "import signal, sys\nsignal.raise_signal = lambda number: sys.exit(0)\n"


class CannotTrainError(Exception):
    """One line that says what did not work."""


def copy_source(to: Path) -> None:
    """The source in a place of its own, for modules that are not to be found by anybody else."""
    for package in PACKAGES:
        shutil.copytree(compiled.ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__", "results"))
    (to / "sitecustomize.py").write_text(_ENDS_BY_ITSELF)


def train(source: Path, *, each: int = _EACH) -> int:
    """Run Weir from this source with its demo, and ask it; how many requests were answered, all of them well."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
    free = {f"WEIR_{name}_ADDR": "127.0.0.1:0" for name in ("GATEWAY", "ADMIN", "OPS")}
    with (
        tempfile.TemporaryDirectory(prefix="weir-training-") as data,
        (Path(data) / "log").open("w+") as log,
        subprocess.Popen(
            [sys.executable, "-m", "weir", "up", "--demo", "--json"],
            cwd=source,
            env={**kept, **free, "PYTHONPATH": str(source), "WEIR_DATA_DIR": f"{data}/weir", "WEIR_WORKERS": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as up,
    ):
        try:
            return _ask_all(_said(up, log), each)
        finally:
            up.send_signal(signal.SIGTERM)
            _ended(up)


def _said(up: subprocess.Popen[str], log: Any) -> dict[str, str]:
    """Its addresses and the demo's key."""
    assert up.stdout is not None
    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(up.stdout.readline)
        try:
            line = reading.result(_STARTS_WITHIN_S)
        except TimeoutError:
            up.kill()
            line = ""
    if not line:
        log.seek(0)
        last = log.read().strip().splitlines()[-1:] or ["it said nothing"]
        raise CannotTrainError(f"the demo did not start: {last[0]}")
    said: dict[str, str] = json.loads(line)
    return said


def _ended(up: subprocess.Popen[str]) -> None:
    try:
        up.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        up.kill()


def _ask_all(said: dict[str, str], each: int) -> int:
    with ThreadPoolExecutor(CALLERS) as callers:
        return sum(callers.map(lambda _: _ask(said, each), range(CALLERS)))


def _ask(said: dict[str, str], times: int) -> int:
    """One caller's requests, on one connection."""
    address = urlsplit(said["gateway"])
    headers = {"authorization": f"Bearer {said['api_key']}", "content-type": "application/json"}
    with contextlib.closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=_WAITS_S)) as line:
        for number in range(times):
            question = [{"role": "system", "content": "Be short."}, {"role": "user", "content": f"What is {number}?"}]
            body = {"model": "weir-demo", "messages": question, "max_tokens": 200, "stream": number % _STREAMED == 0}
            try:
                line.request("POST", "/openai/v1/chat/completions", json.dumps(body), headers)
                answer = line.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise CannotTrainError(f"the demo does not answer: {error!r}") from None
            if answer.status != 200:
                raise CannotTrainError(f"the demo answered {answer.status}: {text[:200].decode(errors='replace')}")
    return times
