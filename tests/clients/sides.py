"""The same call twice, straight to a provider and through Weir, as the SDK's user sees it."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from bench.provider import Behaviour, ScriptedProvider, Seen
from tests.clients.case import Case
from tests.clients.driver import Driver
from tests.clients.sdks import Sdk
from tests.stack import Customer, Stack

Shown = dict[str, Any]


class Dialect(NamedTuple):
    """`gateway`: the base URL below Weir's address, as docs/clients.md has it; `provider`: below a provider's."""

    gateway: str
    provider: str


DIALECTS = {
    "openai": Dialect("/openai/v1", "/v1"),
    "xai": Dialect("/xai/v1", "/v1"),
    "anthropic": Dialect("/anthropic", ""),
    "gemini": Dialect("/gemini", ""),
}
# Of one connection and no other (docs/wire.md 6.1), with the names that servers give themselves.
_OF_A_CONNECTION = frozenset(("connection", "keep-alive", "transfer-encoding", "date", "server"))
_OPERATORS = frozenset(("set-cookie", "openai-organization", "anthropic-organization-id", "alt-svc"))
_OPERATORS_PREFIXES = ("cf-", "x-ratelimit-", "anthropic-ratelimit-")
_PASSED = re.compile(
    r"content-type|accept|user-agent|openai-beta|anthropic-(version|beta)|x-goog-api-client|x-server-timeout|x-stainless-.*"
)
_WEIRS_OWN = frozenset(("host", "content-length", "accept-encoding", "connection"))
_CREDENTIALS = frozenset(("authorization", "x-api-key", "x-goog-api-key"))
_BOUNDARY = re.compile(rb"boundary=(\S+)")


class Site:
    """What all tests share. A model is made when it is first needed."""

    def __init__(
        self, stack: Stack, drivers: Mapping[Sdk, Driver], direct: ScriptedProvider, behind: ScriptedProvider
    ) -> None:
        self.stack = stack
        self.drivers = drivers
        self.direct = direct
        self.behind = behind
        self._models: dict[tuple[str, ...], str] = {}

    async def model(self, dialect: str, **upstream: str) -> str:
        """The name of a model that is served in this dialect by an upstream with these settings."""
        key = (dialect, *sorted(upstream.values()))
        if key not in self._models:
            place = {"provider": dialect, "base_url": self.behind.url + DIALECTS[dialect].provider}
            self._models[key] = await self.stack.model(self.behind.url, upstream={**place, **upstream})
        return self._models[key]


class Sides:
    """One SDK, and a customer of Weir's who may use one model."""

    def __init__(self, site: Site, sdk: Sdk, dialect: str, model: str, customer: Customer) -> None:
        self.stack = site.stack
        self.direct, self.behind = site.direct, site.behind
        self.driver = site.drivers[sdk]
        self.dialect = DIALECTS[dialect]
        self.model = model
        self.customer = customer

    async def both(self, job: Shown, *answers: Behaviour) -> tuple[Shown, Shown]:
        """What the SDK's user sees without Weir, and with it."""
        self.direct.queue(*answers)
        direct = await self.ask_directly(job)
        self.behind.queue(*answers)
        return direct, await self.ask(job)

    async def ask_directly(self, job: Shown) -> Shown:
        place = {"base_url": self.direct.url + self.dialect.provider, "key": "sk-direct"}
        return seen_by_user(await self.driver.ask(self._about_model({**job, **place})))

    async def ask(self, job: Shown, key: str | None = None) -> Shown:
        place = {"base_url": self.stack.gateway + self.dialect.gateway, "key": key or self.customer.key}
        return seen_by_user(await self.driver.ask(self._about_model({**job, **place})))

    def _about_model(self, job: Shown) -> Shown:
        """With the model, unless the job is about none (`bare`)."""
        return job if job.get("bare") else {**job, "args": {"model": self.model, **job["args"]}}


async def sides(site: Site, sdk: Sdk, dialect: str = "", **upstream: str) -> Sides:
    """A new customer, before providers that have forgotten what was."""
    site.direct.reset()
    site.behind.reset()
    model = await site.model(dialect or sdk.family, **upstream)
    return Sides(site, sdk, dialect or sdk.family, model, await site.stack.customer(key={"models": [model]}))


def job(case: Case, *, asynchronous: bool = False) -> Shown:
    plain = {"call": case.call, "args": case.args, "asynchronous": asynchronous}
    return {**plain, "final": case.final} if case.final else plain


def seen_by_user(answer: Shown) -> Shown:
    """An answer with the headers in lower case, without those of the connection that brought it."""
    headers = {name.lower(): value for name, value in answer.get("headers", {}).items()}
    return {**answer, "headers": {name: value for name, value in headers.items() if name not in _OF_A_CONNECTION}}


def expected(direct: Shown) -> Shown:
    """What Weir must make of an answer: the same, without the headers that are the operator's (docs/wire.md 6.3)."""
    headers = direct["headers"].items()
    kept = {n: v for n, v in headers if n not in _OPERATORS and not n.startswith(_OPERATORS_PREFIXES)}
    return {**direct, "headers": kept}


def without_weirs(through: Shown) -> Shown:
    """What came through Weir, without what Weir says of itself."""
    kept = {name: value for name, value in through["headers"].items() if not name.startswith("x-weir-")}
    return {**through, "headers": kept}


def sent(seen: Seen) -> Shown:
    """What a provider was asked, as far as it must not depend on Weir. Forms have a boundary of their own each."""
    headers = {name: value for name, value in seen.headers if _PASSED.fullmatch(name)}
    body, found = seen.body or b"", _BOUNDARY.search(headers.get("content-type", "").encode())
    if found is not None:
        body = body.replace(found[1], b"boundary")
        headers["content-type"] = headers["content-type"].replace(found[1].decode(), "boundary")
    return {"method": seen.method, "target": seen.target, "headers": headers, "body": body}


def others(seen: Seen) -> set[str]:
    """Headers that reached a provider and that Weir should not have sent: everything but what it must."""
    return {name for name, _ in seen.headers if not _PASSED.fullmatch(name)} - _WEIRS_OWN - _CREDENTIALS


def steady(shown: object) -> object:
    """Without the time of day, which scripted answers say; and a usage that is null may as well be absent."""
    if isinstance(shown, dict):
        return {n: steady(v) for n, v in shown.items() if n != "created" and (n, v) != ("usage", None)}
    return [steady(each) for each in shown] if isinstance(shown, list) else shown
