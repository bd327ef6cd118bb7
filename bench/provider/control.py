"""The control plane under /_control/: what a test does to a provider in another process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from bench.provider.house import House
from bench.provider.record import Bill, Seen, Stats
from bench.provider.route import Request
from bench.provider.script import Behaviour

PREFIX = "/_control/"
LONGEST_WAIT_S = 60.0


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    behaviour: Behaviour
    model: str | None = None
    credential: str | None = None


class Queue(msgspec.Struct, forbid_unknown_fields=True):
    behaviours: list[Behaviour]


class Release(msgspec.Struct, forbid_unknown_fields=True):
    count: int | None = None


class Released(msgspec.Struct):
    released: int


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    accepted: frozenset[str] | None


async def _script(house: House, request: Request) -> None:
    rule = msgspec.json.decode(request.body, type=Rule)
    house.script.rule(rule.behaviour, model=rule.model, credential=rule.credential)


async def _queue(house: House, request: Request) -> None:
    house.script.queue(msgspec.json.decode(request.body, type=Queue).behaviours)


async def _release(house: House, request: Request) -> Released:
    return Released(house.release(msgspec.json.decode(request.body or b"{}", type=Release).count))


async def _credentials(house: House, request: Request) -> None:
    house.accepted_credentials = msgspec.json.decode(request.body, type=Credentials).accepted


async def _seen(house: House, request: Request) -> list[Seen]:  # noqa: ARG001
    return list(house.record.seen)


async def _bills(house: House, request: Request) -> list[Bill]:  # noqa: ARG001
    return list(house.record.bills)


async def _stats(house: House, request: Request) -> Stats:
    """At once, or with `?after=<change>&wait_s=<seconds>` when something has happened since that change."""
    query = parse_qs(urlsplit(request.target).query)
    if "after" in query:
        after = int(query["after"][0])
        wait_s = min(float(query.get("wait_s", ["10"])[0]), LONGEST_WAIT_S)
        try:
            async with asyncio.timeout(wait_s):
                await house.record.wait_until(lambda: house.record.stats.change > after)
        except TimeoutError:
            pass  # the caller sees an unchanged `change`
    return house.record.stats


async def _reset(house: House, request: Request) -> None:  # noqa: ARG001
    house.reset()


_ROUTES: dict[tuple[str, str], Callable[[House, Request], Awaitable[Any]]] = {
    ("PUT", "script"): _script,
    ("POST", "queue"): _queue,
    ("POST", "release"): _release,
    ("PUT", "credentials"): _credentials,
    ("GET", "seen"): _seen,
    ("GET", "bills"): _bills,
    ("GET", "stats"): _stats,
    ("POST", "reset"): _reset,
}


async def answer(house: House, request: Request) -> bytes:
    """The whole response."""
    name = request.target.removeprefix(PREFIX).partition("?")[0]
    handler = _ROUTES.get((request.method, name))
    if handler is None:
        return _response("404 Not Found", {"error": f"no {request.method} {PREFIX}{name}"})
    try:
        result = await handler(house, request)
    except (msgspec.DecodeError, ValueError) as problem:
        return _response("400 Bad Request", {"error": str(problem)})
    return _response("200 OK", {} if result is None else result)


def _response(status: str, value: Any) -> bytes:
    body = msgspec.json.encode(value)
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
