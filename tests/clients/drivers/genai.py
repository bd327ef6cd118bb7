"""The google-genai SDK of Python: `python -m tests.clients.drivers.genai`."""

import asyncio
import importlib
from functools import cache
from itertools import islice
from typing import Any

from tests.clients.drivers.loop import Answer, Job, arguments, dumped, method, serve

SDK: Any = importlib.import_module("google.genai")


def answer(job: Job) -> Answer:
    """One call of the plain client."""
    client = _client(job["base_url"], job["key"], job.get("retries", 0))
    try:
        value = method(client, job["call"])(**arguments(job))
        if not hasattr(value, "__next__") and not hasattr(value, "next_page"):
            return _whole(value)
        items = list(islice(value, job.get("leave_after")))
        if hasattr(value, "close"):
            value.close()  # the way to leave a stream
    except Exception as error:  # noqa: BLE001  whatever it is, a caller sees it
        return _error(error)
    return _items(items)


async def answer_async(job: Job) -> Answer:
    """The same of the asynchronous client."""
    client = _client(job["base_url"], job["key"], job.get("retries", 0)).aio
    try:
        value = await method(client, job["call"])(**arguments(job))
        if not hasattr(value, "__aiter__"):
            return _whole(value)
        items = await _some(value, job.get("leave_after"))
    except Exception as error:  # noqa: BLE001  whatever it is, a caller sees it
        return _error(error)
    return _items(items)


async def _some(stream: Any, count: int | None) -> list[Any]:
    """The items; after `count` of them the task that reads them is cancelled.

    A `break` would leave the connection open until Python collects garbage, also with `aclose()`.
    """
    items: list[Any] = []
    enough = asyncio.Event()

    async def read() -> None:
        async for item in stream:
            items.append(item)
            if len(items) == count:
                enough.set()
        enough.set()

    reading, waiting = asyncio.create_task(read()), asyncio.create_task(enough.wait())
    await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if count is not None:
        reading.cancel()
    await asyncio.gather(reading, return_exceptions=count is not None)
    return items


@cache
def _client(base_url: str, key: str, retries: int) -> Any:
    """Kept for the next call, with its connections, as callers keep theirs."""
    options: dict[str, Any] = {"base_url": base_url}
    if retries:  # it retries nothing by itself
        quickly = {"initial_delay": 0.01, "max_delay": 0.05, "jitter": 0.01}
        options["retry_options"] = {"attempts": retries + 1, **quickly}
    return SDK.Client(api_key=key, http_options=options)


def _items(items: list[Any]) -> Answer:
    return {"items": [_dumped(item) for item in items], "headers": _headers(items[0]) if items else {}}


def _whole(value: Any) -> Answer:
    return {"value": _dumped(value), "headers": _headers(value)}


def _dumped(value: Any) -> Any:
    found = dumped(value)
    found.pop("sdk_http_response", None)
    return found


def _headers(value: Any) -> dict[str, str]:
    response = getattr(value, "sdk_http_response", None)
    return dict(response.headers or {}) if response else {}


def _error(error: Any) -> Answer:
    """Everything that a caller can read off an exception."""
    names = ("code", "status", "message", "details")
    shown = {name: getattr(error, name) for name in names if hasattr(error, name)}
    response = getattr(error, "response", None)
    return {"error": type(error).__name__, **shown, "headers": dict(getattr(response, "headers", {}))}


if __name__ == "__main__":
    serve(SDK.__version__, answer, answer_async)
