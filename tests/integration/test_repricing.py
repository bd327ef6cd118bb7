"""Any charge can be computed again from the event's usage and the price version that it pins, to the nano-dollar."""

from collections.abc import AsyncIterator
from itertools import groupby
from typing import Any

import pytest
from redis.asyncio import Redis

from ledger import catalogue, hot, keyspace, repricing
from ledger.cold import ColdBook
from ledger.connections import client
from ledger.link import Link
from ledger.price_record import Price
from ledger.prices import Bound, ceiling, cost_nanos
from ledger.vault import Vault
from tests.integration.admin import UPSTREAM, Api, serving
from tests.integration.ledger_books import PLACE, Ledger, P

MARKUP_PPM = 1_250_000  # of the account's plan
PRICE: dict[str, Any] = {
    "input_per_million_usd": "1.25",
    "output_per_million_usd": "10",
    "cached_input_per_million_usd": "0.125",
    "input_audio_per_million_usd": "32",
    "per_request_usd": "0.000001",
    "per_second_usd": "0.0001",
    "web_search_per_thousand_usd": "10",
    "tiers": [{"above_input_tokens": 200_000, "input_per_million_usd": "2.50"}],
    "service_tiers": {"flex": {"input_per_million_usd": "0.625"}, "priority": {"output_per_million_usd": "20"}},
}
USED: dict[str, dict[str, Any]] = {
    "plain": {"input_uncached": 123, "output": 45},
    "cached": {"input_uncached": 7, "cache_read": 1_001, "output": 1, "output_reasoning": 1},
    "long": {"input_uncached": 150_000, "cache_read": 50_001, "output": 3},
    "flex": {"input_uncached": 13, "output": 5, "service_tier": "flex"},
    "unknown": {"input_uncached": 13, "output": 5, "service_tier": "ultrafast"},
    "search": {"input_uncached": 500, "output": 5, "web_searches": 3, "service_tier": "priority"},
    "audio": {"input_uncached": 9, "input_audio": 4, "output": 1, "audio_seconds": 61},
    "nothing": {},
}


class Run:
    """Requests on the ledger's account, at the price that is in force."""

    def __init__(self, ledger: Ledger, api: Api) -> None:
        self.ledger = ledger
        self.api = api

    async def price(self, price: dict[str, Any]) -> Price:
        """Set the model's price, and take it from where gateways do."""
        body = {
            "upstreams": [{"upstream": "openai", "model": "m"}],
            "price": price,
            "max_output_tokens": 1,
            "markup": "1.1",
        }
        await self.api("PUT", "/models/m", body, status=200 if await self._has() else 201)
        version = await self.ledger.link.command("HGET", keyspace.meta(P), "config")
        text = await self.ledger.link.command("GET", keyspace.config(int(version)))
        return catalogue.decode(text).models["m"].price

    async def _has(self) -> bool:
        return bool((await self.api("GET", "/models"))["items"])

    async def use(self, rid: str, price: Price, usage: dict[str, Any], *, free: bool = False) -> None:
        cost = 0 if free else cost_nanos(price, usage, markup_ppm=MARKUP_PPM)
        event = self.ledger.facts(price_version=price.version, usage=usage, free=free, markup_ppm=MARKUP_PPM)
        await self.ledger.settle(rid, cost, event=event)

    async def hold(self, rid: str, price: Price) -> int:
        """A hold that covers every usage here but the longest."""
        quote = ceiling(price, Bound(2_000, searches=3, seconds=100)).nanos(100, markup_ppm=MARKUP_PPM)
        await self.ledger.admit(rid, quote)
        return quote

    async def abandon(self, rid: str) -> None:
        """A gateway reports what has been used so far, and dies."""
        await hot.progress(self.ledger.link, PLACE, rid, used_nanos=77)
        await self.ledger.link.command("ZADD", keyspace.due(P), "XX", 1, rid)
        assert await hot.sweep(self.ledger.link, PLACE, rid) is not None


@pytest.fixture
async def run(cold: ColdBook, opened: Link, vault: Vault, redis_url: str) -> AsyncIterator[Run]:
    reader: Redis = client(redis_url)
    ledger = Ledger(cold, opened, reader)
    await ledger.customer(10**11)
    async with serving(cold, opened, vault) as api:
        await api("POST", "/upstreams", UPSTREAM, status=201)
        yield Run(ledger, api)
    await reader.aclose()


@pytest.mark.wire("7.4")
async def test_every_event_of_a_run_is_priced_again(run: Run) -> None:
    first = await run.price(PRICE)
    for name, usage in USED.items():
        await run.hold(f"first {name}", first)
        await run.use(f"first {name}", first, usage)
    await run.hold("across", first)
    second = await run.price({**PRICE, "output_per_million_usd": "12"})
    assert second.version == first.version + 1
    for name, usage in USED.items():
        await run.hold(f"second {name}", second)
        await run.use(f"second {name}", second, usage)
    await run.use("across", first, USED["plain"])  # admitted at the first price, so charged by it
    for rid in ("abandoned", "late"):
        await run.hold(rid, second)
        await run.abandon(rid)
    await run.use("late", second, USED["audio"])
    await run.hold("free", second)
    await run.use("free", second, USED["plain"], free=True)
    await run.use("orphan", second, USED["search"])
    await run.ledger.move()
    kept = sorted(await run.ledger.kept(), key=lambda event: event["request_id"])
    found = {}
    for rid, group in groupby(kept, key=lambda event: event["request_id"]):
        events = list(group)
        charged = sum(event["charge_nanos"] + event["shortfall_nanos"] for event in events)
        assert await repricing.owed(run.ledger.cold, events) == charged, rid
        found[rid] = charged
    assert len(found) == 2 * len(USED) + 5
    assert [rid for rid, charged in found.items() if not charged] == ["free"]
    assert found["abandoned"] == 77
    assert found["across"] == found["first plain"] < found["second plain"]
    assert {event["end"] for event in kept} == {"settled", "abandoned", "late", "orphan"}


async def test_a_cost_above_what_could_be_held_is_charge_and_shortfall(run: Run) -> None:
    price = await run.price(PRICE)
    usage = {"input_uncached": 10**9, "output": 1}
    await run.hold("r", price)
    await run.use("r", price, usage)
    await run.ledger.move()
    (event,) = await run.ledger.kept()
    assert event["shortfall_nanos"] > 0
    cost = event["charge_nanos"] + event["shortfall_nanos"]
    assert await repricing.owed(run.ledger.cold, [event]) == cost


async def test_a_version_that_is_not_there_is_said(run: Run) -> None:
    price = await run.price(PRICE)
    await run.hold("r", price)
    await run.use("r", price, USED["plain"])
    await run.ledger.move()
    await run.ledger.cold.prices.delete_many({})
    with pytest.raises(LookupError, match="version 1"):
        await repricing.owed(run.ledger.cold, await run.ledger.kept())
