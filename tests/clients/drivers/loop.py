"""What the drivers have in common: a job a line in, an answer a line out.

A driver runs apart from the tests, without their packages: of the checkout it imports nothing but this file. A job's
`call` is an SDK's method as its users write it, such as `chat.completions.create`.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any

Job = dict[str, Any]
Answer = dict[str, Any]


def serve(version: str, answer: Callable[[Job], Answer], later: Callable[[Job], Coroutine[Any, Any, Answer]]) -> None:
    """Say which version this is, then do one job after the other until nobody asks any more."""
    write({"version": version})
    for line in sys.stdin:
        job = json.loads(line)
        write(asyncio.run(later(job)) if job.get("asynchronous") else answer(job))


def write(message: Answer) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def arguments(job: Job) -> dict[str, Any]:
    """The call's arguments; a `{"base64": ..., "name": ...}` stands for a file."""
    return {name: _file(value) for name, value in job["args"].items()}


def method(client: Any, call: str) -> Any:
    """The method of this name, which may be several attributes deep."""
    found = client
    for name in call.split("."):
        found = getattr(found, name)
    return found


def dumped(value: Any) -> Any:
    """An SDK's object as JSON."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _file(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"base64", "name"}:
        return value["name"], base64.b64decode(value["base64"])
    return value
