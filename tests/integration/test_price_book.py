"""The price book: imported, compared, taken by exact name, and never billed by itself."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from ledger.cold import ColdBook
from ledger.link import Link
from ledger.prices import cost_nanos, known_variants
from ledger.vault import Vault
from tests.integration.admin import UPSTREAM, Api, serving
from tests.integration.test_admin_catalogue import in_force
from weir import price_import

FIRST = {"input_per_million_usd": "2.00", "output_per_million_usd": "8.00"}
DEARER = {**FIRST, "input_per_million_usd": "3.00", "service_tiers": {"flex": {"input_per_million_usd": "1.00"}}}


@pytest.fixture
async def api(cold: ColdBook, opened: Link, vault: Vault) -> AsyncIterator[Api]:
    async with serving(cold, opened, vault) as served:
        await served("POST", "/upstreams", UPSTREAM, status=201)
        yield served


def part(*entries: dict[str, Any], provider: str = "openai", **more: Any) -> dict[str, Any]:
    return {"provider": provider, "source": "test 1", "entries": [*entries], **more}


def entry(model: str = "m", price: dict[str, Any] = FIRST, **more: Any) -> dict[str, Any]:
    return {"model": model, "price": price, **more}


def model(name: str = "m", **more: Any) -> dict[str, Any]:
    return {"upstreams": [{"upstream": "openai", "model": name}], "price": "book", "max_output_tokens": 99, **more}


async def test_what_is_imported_from_the_source_is_what_a_model_costs(api: Api, opened: Link) -> None:
    """Import, compare, set a model by the book, and bill by it."""
    found = price_import.entries("openai", datetime.now(UTC)).entries
    body = part(*found, based_on=0)
    planned = await api("POST", "/price-book/diff", body)
    assert not planned["written"]
    assert not (await api("GET", "/price-book"))["items"]
    assert {change["model"]: change["change"] for change in planned["items"]}["gpt-4.1"] == "new"
    written = await api("PUT", "/price-book", body)
    assert (written["version"], written["written"], written["items"]) == (1, True, planned["items"])
    assert not (await api("POST", "/price-book/diff", body))["items"]
    made = await api("PUT", "/models/mine", model("gpt-4.1", markup="1.5"), status=201)
    assert made["price"]["input_per_million_usd"] == "2.00"
    assert made["price_book"] == {"provider": "openai", "model": "gpt-4.1", "version": 1}
    assert made["max_input_tokens"] == 1_000_000
    kept = (await in_force(opened)).models["mine"].price
    assert kept.rates == {"input": 3_000_000, "output": 12_000_000, "cached_input": 750_000, "web_search": 15 * 10**9}
    assert known_variants(kept) == {"batch", "fast", "priority"}
    assert cost_nanos(kept, {"input_uncached": 10, "output": 1, "service_tier": "priority"}) == 52_500 + 21_000


async def test_every_entry_comes_back_as_it_can_be_imported_again(api: Api) -> None:
    for provider in price_import.PROVIDERS:
        found = price_import.entries(provider, datetime.now(UTC)).entries
        await api("PUT", "/price-book", part(*found, provider=provider))
        again: list[dict[str, Any]] = []
        cursor: dict[str, Any] = {}
        while True:
            page = await api("GET", "/price-book", provider=provider, limit=100, **cursor)
            again += page["items"]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert [one["model"] for one in again] == [one["model"] for one in found]
        outside = ("provider", "version", "source", "imported_at")
        entries = [{name: value for name, value in one.items() if name not in outside} for one in again]
        repeated = await api("PUT", "/price-book", part(*entries, provider=provider))
        assert (repeated["written"], repeated["items"]) == (False, [])


@pytest.mark.wire("7.2")
async def test_names_are_exact(api: Api) -> None:
    for provider in ("openai", "anthropic"):
        found = price_import.entries(provider, datetime.now(UTC)).entries
        await api("PUT", "/price-book", part(*found, provider=provider))
    for name in ("gpt-4.1-NOT-REAL", "gpt-4.", "GPT-4.1", "claude-opus-5", "ft:gpt-4o:org::1"):
        refused = await api("PUT", "/models/x", model(name), status=422)
        assert refused["errors"][0]["field"] == "price"
        assert "exactly the name" in refused["detail"]
    assert not (await api("GET", "/models"))["items"]
    assert not (await api("GET", "/price-book", model="gpt-4.1-NOT-REAL"))["items"]
    assert len((await api("GET", "/price-book", model="gpt-4.1"))["items"]) == 1


async def test_a_price_without_an_output_rate_is_refused(api: Api) -> None:
    await api(
        "PUT",
        "/price-book",
        part(entry("embed", {"input_per_million_usd": "0.02"}), entry("hear", {"per_hour_usd": "1"})),
    )
    refused = await api("PUT", "/models/x", model("embed"), status=422)
    assert "no output_per_million_usd for this model" in refused["detail"]
    assert "input_per_million_usd and no output" in (await api("PUT", "/models/x", model("hear"), status=422))["detail"]


async def test_the_provider_is_that_of_the_first_upstream(api: Api) -> None:
    await api("POST", "/upstreams", {**UPSTREAM, "name": "other", "provider": "openai_compatible"}, status=201)
    await api("PUT", "/price-book", part(entry()))
    two = [{"upstream": "other", "model": "m"}, {"upstream": "openai", "model": "m"}]
    await api("PUT", "/models/x", model(upstreams=two), status=422)
    await api("PUT", "/models/x", model(upstreams=two[::-1]), status=201)
    await api("PUT", "/price-book", part(entry("m", DEARER), provider="openai_compatible"))
    made = await api("PUT", "/models/x", model(upstreams=two))
    assert (made["price_book"]["provider"], made["price"]["input_per_million_usd"]) == ("openai_compatible", "3.00")


async def test_markups_multiply_and_each_rounds_up(api: Api) -> None:
    tiny = {"input_per_million_usd": "0.000001", "output_per_million_usd": "1"}
    await api("PUT", "/price-book", part(entry("m", tiny, markup="1.1", context_window=5)))
    made = await api("PUT", "/models/x", model(markup="1.5"), status=201)
    assert (made["rates_picos"], made["max_input_tokens"]) == ({"input": 3, "output": 1_650_000}, 5)
    assert (made["price"]["input_per_million_usd"], made["markup"]) == ("0.000002", "1.50")
    assert (await api("PUT", "/models/x", model(max_input_tokens=7)))["max_input_tokens"] == 7


async def test_an_import_changes_no_price_until_it_is_applied(api: Api, opened: Link) -> None:
    await api("PUT", "/price-book", part(entry(), entry("other")))
    made = await api("PUT", "/models/x", model(markup="2"), status=201)
    await api("PUT", "/models/own", model(price=FIRST), status=201)
    written = await api("PUT", "/price-book", part(entry("m", DEARER), entry("third")))
    flex = {"field": "service_tiers.flex.input_per_million_usd", "old": None, "new": "1.00"}
    changed = written["items"][0]
    assert (changed["model"], changed["change"], changed["served_as"]) == ("m", "changed", ["x"])
    assert {"field": "input_per_million_usd", "old": "2.00", "new": "3.00"} in changed["rates"]
    assert flex in changed["rates"]
    assert [(c["model"], c["change"]) for c in written["items"][1:]] == [("other", "gone"), ("third", "new")]
    assert await api("GET", "/models/x") == made
    before = await in_force(opened)
    planned = await api("POST", "/price-book/apply", {"dry_run": True})
    assert (planned["written"], await in_force(opened)) == (False, before)
    applied = await api("POST", "/price-book/apply", {})
    assert applied == {"items": planned["items"], "written": True}
    assert (await in_force(opened)).version > before.version
    (change,) = applied["items"]
    assert (change["model"], change["old_price_version"]) == ("x", made["price_version"])
    assert {"field": "input_per_million_usd", "old": "4.00", "new": "6.00"} in change["rates"]
    now = await api("GET", "/models/x")
    assert (now["price_version"], now["price_book"]["version"]) == (change["new_price_version"], 2)
    assert (now["markup"], now["max_output_tokens"], now["upstreams"]) == ("2.00", 99, made["upstreams"])
    kept = (await in_force(opened)).models
    assert (kept["x"].price.rates["input"], kept["own"].price.rates["input"]) == (6_000_000, 2_000_000)
    assert known_variants(kept["x"].price) == {"flex"}
    assert (await api("POST", "/price-book/apply", {}))["items"] == []
    await api("PUT", "/price-book", part(entry("m", FIRST)))
    assert (await api("POST", "/price-book/apply", {"models": ["own"]}))["items"] == []
    await api("POST", "/price-book/apply", {"models": ["x"]})
    assert not known_variants((await in_force(opened)).models["x"].price)


async def test_a_model_whose_entry_is_gone_keeps_its_price(api: Api) -> None:
    await api("PUT", "/price-book", part(entry(), entry("n")))
    made = await api("PUT", "/models/x", model(), status=201)
    await api("PUT", "/models/y", model("n"), status=201)
    await api("PUT", "/price-book", part(entry("n", DEARER)))
    gone, changed = (await api("POST", "/price-book/apply", {}))["items"]
    assert (gone["model"], changed["model"]) == ("x", "y")
    assert "no entry of exactly" in gone["problem"]
    assert await api("GET", "/models/x") == made


async def test_versions_stay_and_do_not_cross(api: Api) -> None:
    await api("PUT", "/price-book", part(entry(), based_on=0))
    await api("PUT", "/price-book", part(entry("c"), provider="anthropic", based_on=0))
    assert (await api("PUT", "/price-book", part(entry("m", DEARER), based_on=0), status=409))[
        "code"
    ] == "price_book_changed"
    assert (await api("PUT", "/price-book", part(entry("m", DEARER), based_on=1)))["version"] == 3
    now = await api("GET", "/price-book")
    assert (now["version"], [(e["provider"], e["version"]) for e in now["items"]]) == (
        3,
        [("anthropic", 2), ("openai", 3)],
    )
    old = await api("GET", "/price-book", version=1)
    assert [(e["model"], e["price"]["input_per_million_usd"]) for e in old["items"]] == [("m", "2.00")]
    await api("GET", "/price-book", version=4, status=404)


async def test_the_book_refuses(api: Api) -> None:
    for body in (
        part(entry(), entry()),
        part(entry("m", {"input_per_million_usd": "-1"})),
        part(entry("m", markup="0")),
        part(entry("a b")),
        part(entry(left_out={"a b": "1"})),
        part(entry(upcoming=[{"starts": "soon", "price": FIRST}])),
        part(provider="acme"),
        part(entry(more=1)),
    ):
        await api("PUT", "/price-book", body, status=422)
    assert (await api("GET", "/price-book")) == {"version": 0, "items": [], "next_cursor": None}
