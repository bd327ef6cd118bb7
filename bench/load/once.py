"""One request, tried until it is answered: for what has just been started."""

import time
from collections.abc import Callable

import httpx2

from bench.contest import Way
from bench.machine import START_TIMEOUT_S


def obstacle(way: Way, *, while_true: Callable[[], bool] = lambda: True) -> str:
    """What stands in the way of a 200 for a chat completion when time is up, or `while_true` is not; empty: nothing."""
    headers = {"authorization": f"Bearer {way.key}", "content-type": "application/json", **way.headers}
    deadline = time.monotonic() + START_TIMEOUT_S
    last = "it was not asked"
    with httpx2.Client(trust_env=False, timeout=START_TIMEOUT_S) as client:
        while time.monotonic() < deadline and while_true():
            try:
                answer = client.post(way.url, content=way.body(), headers=headers)
                if answer.status_code == 200:
                    return ""
                last = f"{answer.status_code} {answer.text[:200]}"
            except httpx2.TransportError as error:
                last = repr(error)
            time.sleep(0.01)
    return last
