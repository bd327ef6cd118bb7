"""The openai and anthropic SDKs of Python, which are of one make: `python -m tests.clients.drivers.stainless openai`."""

import importlib
import sys
from functools import cache
from itertools import islice
from typing import Any

from tests.clients.drivers.loop import Answer, Job, arguments, dumped, method, serve, sound

PACKAGE = sys.argv[1]
SDK: Any = importlib.import_module(PACKAGE)
NAME = {"openai": "OpenAI", "anthropic": "Anthropic"}[PACKAGE]


def answer(job: Job) -> Answer:
    """One call of the plain client."""
    client = _client(NAME, job["base_url"], job["key"], job.get("retries", 0))
    try:
        if "final" in job:
            with method(client, job["call"])(**arguments(job)) as stream:
                return {"events": len(list(stream)), "value": dumped(getattr(stream, _final(job))())}
        raw = method(client, _raw(job))(*job.get("positional", ()), **arguments(job))
        value = raw.parse()
        if hasattr(value, "iter_bytes"):
            found: Answer = {"value": sound(value.content)}
        elif hasattr(value, "close"):
            found = {"items": [dumped(item) for item in islice(value, job.get("leave_after"))]}
            value.close()  # the way to leave a stream: a bare `break` leaves it open
        elif hasattr(value, "has_next_page"):
            found = {"items": [dumped(item) for item in value]}
        else:
            found = _whole(value)
    except Exception as error:  # noqa: BLE001  whatever it is, a caller sees it
        return _error(error)
    return {**found, "headers": dict(raw.headers)}


async def answer_async(job: Job) -> Answer:
    """The same of the asynchronous client."""
    client = _client(f"Async{NAME}", job["base_url"], job["key"], job.get("retries", 0))
    try:
        if "final" in job:
            async with method(client, job["call"])(**arguments(job)) as stream:
                events = await _some(stream, None)
                return {"events": len(events), "value": dumped(await getattr(stream, _final(job))())}
        raw = await method(client, _raw(job))(*job.get("positional", ()), **arguments(job))
        value = raw.parse()
        if hasattr(value, "__await__"):  # not in every version
            value = await value
        if hasattr(value, "iter_bytes"):
            found: Answer = {"value": sound(value.content)}
        elif hasattr(value, "close"):
            found = {"items": await _some(value, job.get("leave_after"))}
            await value.close()
        elif hasattr(value, "has_next_page"):
            found = {"items": await _some(value, None)}
        else:
            found = _whole(value)
    except Exception as error:  # noqa: BLE001  whatever it is, a caller sees it
        return _error(error)
    return {**found, "headers": dict(raw.headers)}


@cache
def _client(name: str, base_url: str, key: str, retries: int) -> Any:
    """Kept for the next call, with its connections, as callers keep theirs."""
    return getattr(SDK, name)(base_url=base_url, api_key=key, max_retries=retries)


async def _some(stream: Any, count: int | None) -> list[Any]:
    found: list[Any] = []
    async for item in stream:
        found.append(dumped(item))
        if len(found) == count:
            break
    return found


def _raw(job: Job) -> str:
    """The same method, in the form that shows the headers too."""
    resource, _, name = job["call"].rpartition(".")
    return f"{resource}.with_raw_response.{name}"


def _final(job: Job) -> str:
    """Where the helpers for streams keep what they made of all events."""
    return f"get_final_{job['final']}"


def _whole(value: Any) -> Answer:
    return {"value": dumped(value), "request_id": getattr(value, "_request_id", None)}


def _error(error: Any) -> Answer:
    """Everything that a caller can read off an exception; one for a stream has no status and no headers."""
    response = getattr(error, "response", None)
    names = ("code", "type", "param", "message", "error_code", "request_id", "status_code", "body")
    shown = {name: getattr(error, name) for name in names if hasattr(error, name)}
    headers = dict(response.headers) if response is not None else {}
    return {"error": type(error).__name__, **shown, "headers": headers}


if __name__ == "__main__":
    serve(SDK.__version__, answer, answer_async)
