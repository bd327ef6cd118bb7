"""What the drivers have in common: a job a line in, an answer a line out.

A driver runs apart from the tests, without their packages: of the checkout it imports nothing but this file. A job's
`call` is an SDK's method as its users write it, such as `chat.completions.create`; or it has a whole `program`.
"""

import asyncio
import base64
import contextlib
import io
import json
import os
import runpy
import sys
from collections.abc import Callable, Coroutine
from typing import Any

Job = dict[str, Any]
Answer = dict[str, Any]


def serve(version: str, answer: Callable[[Job], Answer], later: Callable[[Job], Coroutine[Any, Any, Answer]]) -> None:
    """Say which version this is, then do one job after the other until nobody asks any more."""
    write({"version": version})
    with asyncio.Runner() as runner:  # one loop for all jobs, as clients are kept
        for line in sys.stdin:
            job = json.loads(line)
            if "program" in job:
                write({"printed": _printed(job["program"], job.get("environment", {}))})
            elif job.get("asynchronous"):
                write(runner.run(_settled(later(job))))
            else:
                write(answer(job))


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


def sound(content: bytes) -> str:
    """Bytes that are no text, as JSON can have them."""
    return base64.b64encode(content).decode()


def _printed(program: str, environment: dict[str, str]) -> str:
    """What a program of a file prints."""
    printed = io.StringIO()
    os.environ.update(environment)
    with contextlib.redirect_stdout(printed):
        runpy.run_path(program)
    for name in environment:
        del os.environ[name]
    return printed.getvalue()


async def _settled(answer: Coroutine[Any, Any, Answer]) -> Answer:
    """What a loop that runs on does next: what was let go is closed in its next turns."""
    found = await answer
    for _ in range(10):
        await asyncio.sleep(0)
    return found


def _file(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"base64", "name"}:
        return value["name"], base64.b64decode(value["base64"])
    return value
