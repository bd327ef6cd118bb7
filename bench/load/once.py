"""One request, tried until it is answered: for what has just been started."""

import time
from collections.abc import Callable

import httpx2

from bench.contest import Way
from bench.machine import START_TIMEOUT_S


def answered(way: Way, *, while_true: Callable[[], bool] = lambda: True) -> bool:
    """Whether a chat completion was answered with 200 in time, and before `while_true` was not."""
    headers = {"authorization": f"Bearer {way.key}", "content-type": "application/json", **way.headers}
    deadline = time.monotonic() + START_TIMEOUT_S
    with httpx2.Client(trust_env=False, timeout=START_TIMEOUT_S) as client:
        while time.monotonic() < deadline and while_true():
            try:
                if client.post(way.url, content=way.body(), headers=headers).status_code == 200:
                    return True
            except httpx2.TransportError:
                pass
            time.sleep(0.01)
    return False
