"""Upstreams, models and prices through the admin API: what is answered is what the gateway reads."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson.int64 import Int64

from ledger import catalogue, keyspace
from ledger.catalogue import Catalogue, Target
from ledger.cold import ColdBook
from ledger.link import Link
from ledger.price_record import Price, Tier
from ledger.prices import cost_nanos, known_variants
from ledger.vault import Vault
from tests.integration.admin import PRICE, UPSTREAM, Api, hashed, serving


@pytest.fixture
async def api(cold: ColdBook, opened: Link, vault: Vault) -> AsyncIterator[Api]:
    async with serving(cold, opened, vault) as served:
        yield served


async def in_force(redis: Link) -> Catalogue:
    """The catalogue of every partition, which must be the same one."""
    metas = await asyncio.gather(*(hashed(redis, keyspace.meta(p)) for p in keyspace.PARTITIONS))
    (version,) = {int(meta["config"]) for meta in metas}
    return catalogue.decode(await redis.command("GET", keyspace.config(version)))


# Upstreams


async def test_an_upstream_is_in_force_and_its_credential_sealed(api: Api, opened: Link, vault: Vault) -> None:
    made = await api("POST", "/upstreams", UPSTREAM, idem="u", status=201)
    assert UPSTREAM["credential"] not in str(made)
    assert await api("POST", "/upstreams", UPSTREAM, idem="u") == made
    assert await api("GET", f"/upstreams/{made['id']}") == made
    assert (await api("GET", "/upstreams"))["items"] == [made]
    kept = (await in_force(opened)).upstreams[made["id"]]
    assert (kept.provider, kept.base_url, kept.on_client_left) == ("openai", "https://api.openai.com/v1", "drain")
    opens = vault.open(kept.credential, purpose=catalogue.credential_purpose(made["id"]))
    assert opens.decode() == UPSTREAM["credential"]


async def test_an_upstream_changes_and_goes(api: Api, opened: Link, vault: Vault) -> None:
    made = await api("POST", "/upstreams", UPSTREAM, status=201)
    one = f"/upstreams/{made['id']}"
    change = {"base_url": "https://eu.example.com/v1/", "credential": "sk-new", "weight": 3, "on_client_left": "abort"}
    changed = await api("PATCH", one, change)
    assert (changed["base_url"], changed["weight"], changed["name"]) == ("https://eu.example.com/v1", 3, "openai")
    kept = (await in_force(opened)).upstreams[made["id"]]
    assert (kept.base_url, kept.weight, kept.on_client_left) == ("https://eu.example.com/v1", 3, "abort")
    assert vault.open(kept.credential, purpose=catalogue.credential_purpose(made["id"])) == b"sk-new"
    await api.model()
    assert (await api("DELETE", one, status=409))["code"] == "upstream_in_use"
    await api("DELETE", "/models/gpt-x")
    await api("DELETE", one)
    assert not (await in_force(opened)).upstreams
    await api("DELETE", one, status=404)


async def test_upstreams_refuse(api: Api) -> None:
    made = await api("POST", "/upstreams", UPSTREAM, status=201)
    assert (await api("POST", "/upstreams", UPSTREAM, status=409))["code"] == "upstream_exists"
    other = await api("POST", "/upstreams", {**UPSTREAM, "name": "other"}, status=201)
    assert (await api("PATCH", f"/upstreams/{other['id']}", {"name": "openai"}, status=409))[
        "code"
    ] == "upstream_exists"
    changes: list[dict[str, Any]] = [
        *({"name": "a b"}, {"provider": "acme"}, {"credential": ""}, {"credential": "a b"}, {"credential": "a\nb"}),
        *({"weight": -1}, {"on_client_left": "stay"}, {"limits": {"concurrency": 0}}, {"more": 1}),
        *({"base_url": "http://api.openai.com"}, {"base_url": "https://127.0.0.1/v1"}, {"base_url": "https://x"}),
    ]
    for change in changes:
        await api("POST", "/upstreams", {**UPSTREAM, "name": "third", **change}, status=422)
    await api("PATCH", f"/upstreams/{made['id']}", {"base_url": "https://169.254.169.254/latest"}, status=422)
    await api("PATCH", f"/upstreams/{made['id']}", {"weight": None}, status=422)
    await api("PATCH", f"/upstreams/{made['id']}", {"provider": "xai"}, status=422)
    for method in ("GET", "DELETE"):
        await api(method, "/upstreams/up_nobody", status=404)
    await api("PATCH", "/upstreams/up_nobody", {"weight": 1}, status=404)


async def test_an_upstreams_limits_are_merged_and_in_force(api: Api, opened: Link) -> None:
    body = {**UPSTREAM, "limits": {"requests_per_minute": 60, "concurrency": 5}}
    made = await api("POST", "/upstreams", body, status=201)
    assert made["limits"] == {"requests_per_minute": 60, "concurrency": 5}
    one = f"/upstreams/{made['id']}"
    changed = await api("PATCH", one, {"limits": {"concurrency": None, "tokens_per_minute": 900}})
    assert changed["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 900}
    assert (await api("PATCH", one, {"weight": 2}))["limits"] == changed["limits"]
    assert (await in_force(opened)).upstreams[made["id"]].limits == catalogue.UpstreamLimits(
        requests_per_minute=60, tokens_per_minute=900
    )
    for limits in ({"requests": 1}, {"concurrency": -1}, {"tokens_per_minute": 1.5}):
        await api("PATCH", one, {"limits": limits}, status=422)


async def test_a_models_line(api: Api, opened: Link) -> None:
    await api("POST", "/upstreams", UPSTREAM, status=201)
    form = {"upstreams": [{"upstream": "openai", "model": "m"}], "price": PRICE, "max_output_tokens": 9}
    made = await api("PUT", "/models/m", {**form, "queue_size": 20, "queue_timeout_s": 2.5}, status=201)
    assert (made["queue_size"], made["queue_timeout_s"]) == (20, 2.5)
    served = (await in_force(opened)).models["m"]
    assert (served.queue_size, served.queue_timeout_s) == (20, 2.5)
    assert (await api("PUT", "/models/m", form))["queue_size"] == 0
    for wrong in ({"queue_size": -1}, {"queue_timeout_s": 0}, {"queue_timeout_s": 601}):
        await api("PUT", "/models/m", {**form, **wrong}, status=422)


async def test_fallbacks_are_models_of_the_dialect_and_never_come_back(api: Api, opened: Link) -> None:
    await api("POST", "/upstreams", UPSTREAM, status=201)
    await api("POST", "/upstreams", {**UPSTREAM, "name": "claude", "provider": "anthropic"}, status=201)
    form = {"upstreams": [{"upstream": "openai", "model": "m"}], "price": PRICE, "max_output_tokens": 9}
    for name in ("a", "b", "c"):
        await api("PUT", f"/models/{name}", form, status=201)
    other = {**form, "upstreams": [{"upstream": "claude", "model": "m"}]}
    await api("PUT", "/models/other", other, status=201)
    made = await api("PUT", "/models/a", {**form, "fallbacks": ["c", "b"]})
    assert made["fallbacks"] == ["c", "b"]
    assert (await in_force(opened)).models["a"].fallbacks == ("c", "b")
    await api("PUT", "/models/b", {**form, "fallbacks": ["c"]})
    wrong = {
        "itself": ("c", ["c"]), "cycle": ("c", ["b"]), "no model": ("c", ["nobody"]), "another dialect": ("c", ["other"]),
        "twice": ("b", ["c", "c"]),
    }  # fmt: skip
    for word, (name, fallbacks) in wrong.items():
        problem = await api("PUT", f"/models/{name}", {**form, "fallbacks": fallbacks}, status=422)
        assert word in str(problem), problem
    assert "falls back" in (await api("DELETE", "/models/c", status=409))["detail"]
    await api("DELETE", "/models/a")
    await api("DELETE", "/models/b")
    await api("DELETE", "/models/c")


async def test_private_upstreams_when_allowed(cold: ColdBook, opened: Link, vault: Vault) -> None:
    async with serving(cold, opened, vault, WEIR_ALLOW_PRIVATE_UPSTREAMS="on") as api:
        made = await api("POST", "/upstreams", {**UPSTREAM, "base_url": "http://127.0.0.1:9/v1"}, status=201)
        assert made["base_url"] == "http://127.0.0.1:9/v1"


# Models and prices


async def test_a_model_is_priced_to_the_pico(api: Api, opened: Link) -> None:
    upstream = await api("POST", "/upstreams", UPSTREAM, status=201)
    price = {"input_per_million_usd": "0.0375", "output_per_million_usd": 0.6, "cached_input_per_million_usd": "0"}
    price |= {"cache_write_5m_per_million_usd": "0.05", "output_audio_per_million_usd": 12, "per_request_usd": "1e-6"}
    made = await api.model("org/gpt-x:free", price=price, max_input_tokens=128_000, reasons=True)
    rates = {
        "input": 37_500,
        "output": 600_000,
        "cached_input": 0,
        "cache_write_5m": 50_000,
        "output_audio": 12 * 10**6,
    }
    assert made["rates_picos"] == {**rates, "request": 10**6}
    assert made["price"]["input_per_million_usd"] == "0.0375"
    assert made["price"]["per_request_usd"] == "0.000001"
    assert made["upstreams"] == [{"upstream": "openai", "model": "org/gpt-x:free"}]
    assert (await api("GET", "/models/org/gpt-x:free")) == made
    assert (await api("GET", "/models"))["items"] == [made]
    kept = (await in_force(opened)).models["org/gpt-x:free"]
    assert kept.targets == (Target(upstream["id"], "org/gpt-x:free"),)
    assert (kept.max_output_tokens, kept.max_input_tokens, kept.reasons) == (16_384, 128_000, True)
    assert cost_nanos(kept.price, {"input_uncached": 1_000, "output": 10}) == 37_500 + 6_000 + 1_000


async def test_a_markup_rounds_each_rate_up(api: Api) -> None:
    await api("POST", "/upstreams", UPSTREAM, status=201)
    price = {"input_per_million_usd": "0.000001", "output_per_million_usd": "2.50"}
    made = await api.model(price=price, markup="1.2")
    assert made["rates_picos"] == {"input": 2, "output": 3_000_000}
    assert (made["markup"], made["price"]["output_per_million_usd"]) == ("1.20", "2.50")


async def test_a_price_has_versions(api: Api, opened: Link) -> None:
    await api("POST", "/upstreams", UPSTREAM, status=201)
    first = await api.model()
    body = {"upstreams": [{"upstream": "openai", "model": "m"}], "price": PRICE, "max_output_tokens": 1}
    same = await api("PUT", "/models/gpt-x", body)
    assert (same["price_version"], same["max_output_tokens"]) == (first["price_version"], 1)
    dearer = await api("PUT", "/models/gpt-x", {**body, "price": {**PRICE, "input_per_million_usd": "3"}})
    assert dearer["price_version"] == first["price_version"] + 1
    kept = (await in_force(opened)).models["gpt-x"].price
    assert (kept.version, kept.rates["input"]) == (dearer["price_version"], 3 * 10**6)
    book = (await api("GET", "/prices"))["items"]
    assert [entry["version"] for entry in book] == [2, 1]
    (old,) = (await api("GET", "/prices", version=1))["items"]
    assert (old["model"], old["price"]["input_per_million_usd"]) == ("gpt-x", "2.00")
    await api("GET", "/prices", version=7, status=404)
    page = await api("GET", "/prices", limit=1)
    assert [e["version"] for e in (await api("GET", "/prices", cursor=page["next_cursor"]))["items"]] == [1]
    await api("DELETE", "/models/gpt-x")
    assert not (await in_force(opened)).models
    assert len((await api("GET", "/prices"))["items"]) == 2
    for method in ("GET", "DELETE"):
        await api(method, "/models/gpt-x", status=404)


async def test_tiers_and_service_tiers_are_in_force_with_the_markup(api: Api, opened: Link) -> None:
    await api("POST", "/upstreams", UPSTREAM, status=201)
    flex = {"input_per_million_usd": "1", "tiers": [{"above_input_tokens": 500, "output_per_million_usd": "9"}]}
    price = {
        **PRICE,
        "per_second_usd": "0.0001",
        "web_search_per_thousand_usd": "10",
        "tiers": [{"above_input_tokens": 200, "input_per_million_usd": "4"}],
        "service_tiers": {"flex": flex, "fast+us": {"input_per_million_usd": "3"}},
    }
    made = await api.model(price=price, markup="1.5")
    kept = (await in_force(opened)).models["gpt-x"].price
    assert known_variants(kept) == {"flex", "fast+us"}
    rest = {"second": 540 * 10**9, "web_search": 15 * 10**9}
    assert kept.rates == {"input": 3 * 10**6, "output": 12 * 10**6, **rest}
    assert kept.tiers == (Tier(200, {"input": 6 * 10**6, "output": 12 * 10**6, **rest}),)
    assert kept.services["flex"].tiers == (Tier(500, {"input": 1_500_000, "output": 13_500_000, **rest}),)
    assert cost_nanos(kept, {"input_uncached": 201, "audio_seconds": 2}) == 201 * 6_000 + 300_000
    assert cost_nanos(kept, {"input_uncached": 10, "speed": "fast", "inference_geo": "us"}) == 45_000
    assert made["price"]["tiers"][0]["input_per_million_usd"] == "4.00"
    assert made["services_picos"]["flex"]["rates"]["input"] == 1_500_000
    body = {"upstreams": [{"upstream": "openai", "model": "gpt-x"}], "max_output_tokens": 1, "markup": "1.5"}
    again = await api("PUT", "/models/gpt-x", {**body, "price": made["price"]})
    assert again["price_version"] == made["price_version"]
    (version,) = (await api("GET", "/prices"))["items"]
    assert (version["price"]["tiers"][0]["input_per_million_usd"], version["tiers_picos"]) == (
        "6.00",
        made["tiers_picos"],
    )
    fewer = {name: value for name, value in made["price"].items() if name != "tiers"}
    dearer = await api("PUT", "/models/gpt-x", {**body, "price": fewer})
    assert dearer["price_version"] == made["price_version"] + 1


async def test_what_was_stored_before_there_were_tiers_is_read(api: Api, cold: ColdBook, opened: Link) -> None:
    await api("POST", "/upstreams", UPSTREAM, status=201)
    made = await api.model()
    rates = {"input": Int64(2 * 10**6), "output": Int64(8 * 10**6)}
    await cold.models.update_one({"_id": "gpt-x"}, {"$set": {"entered": rates, "rates": rates}})
    await cold.prices.update_one({"_id": 1}, {"$set": {"rates": rates}})
    assert await api("GET", "/models/gpt-x") == made
    body = {"upstreams": [{"upstream": "openai", "model": "gpt-x"}], "price": PRICE, "max_output_tokens": 16_384}
    assert (await api("PUT", "/models/gpt-x", body))["price_version"] == 1
    assert (await in_force(opened)).models["gpt-x"].price == Price(1, {"input": 2 * 10**6, "output": 8 * 10**6})


async def test_what_is_no_price_is_refused_by_field(api: Api) -> None:
    await api("POST", "/upstreams", UPSTREAM, status=201)
    body = {"upstreams": [{"upstream": "openai", "model": "m"}], "price": PRICE, "max_output_tokens": 1}
    for field, value, where in (
        ("per_second_usd", "1e-13", "per_second_usd"),
        ("tiers", [{"above_input_tokens": 200_000, "input_per_million_usd": "-4"}], "tiers.0.input_per_million_usd"),
        ("service_tiers", {"flex": {"input": "1"}}, "service_tiers.flex.input"),
    ):
        refused = await api("PUT", "/models/m", {**body, "price": {**PRICE, field: value}}, status=422)
        assert [error["field"] for error in refused["errors"]] == [f"price.{where}"]
    changes: list[dict[str, Any]] = [
        *({"upstreams": []}, {"upstreams": [{"upstream": "nobody", "model": "m"}]}, {"max_output_tokens": None}),
        *({"markup": "0"}, {"markup": "1.0000001"}, {"price": {"input_per_million_usd": "1"}}, {"more": 1}),
        *(
            {"price": {**PRICE, "input_per_million_usd": "0.0000001"}},
            {"price": {**PRICE, "input_per_million_usd": "-1"}},
        ),
        *({"price": {**PRICE, "input_per_million_usd": "1e30"}}, {"max_output_tokens": 0}, {"max_input_tokens": 0}),
    ]
    for change in changes:
        await api("PUT", "/models/m", {**body, **change}, status=422)
    await api("PUT", "/models/-m", body, status=422)
    assert not (await api("GET", "/models"))["items"]
    assert not (await api("GET", "/prices"))["items"]


async def test_a_model_and_the_end_of_its_upstream_do_not_cross(api: Api, opened: Link) -> None:
    for n in range(6):
        made = await api("POST", "/upstreams", {**UPSTREAM, "name": f"u{n}"}, status=201)
        body = {"upstreams": [{"upstream": f"u{n}", "model": "m"}], "price": PRICE, "max_output_tokens": 1}
        put, gone = await asyncio.gather(
            api.http.put(f"/v1/models/m{n}", json=body), api.http.delete(f"/v1/upstreams/{made['id']}")
        )
        assert (put.status_code, gone.status_code) in {(201, 409), (422, 200)}
    found = await in_force(opened)
    assert all(target.upstream in found.upstreams for model in found.models.values() for target in model.targets)


async def test_many_changes_at_once_end_in_one_catalogue(api: Api, opened: Link) -> None:
    await api("POST", "/upstreams", UPSTREAM, status=201)
    await asyncio.gather(*(api.model(f"m{n}") for n in range(8)))
    found = await in_force(opened)
    assert set(found.models) == {f"m{n}" for n in range(8)}
    assert {model.price.version for model in found.models.values()} == set(range(1, 9))
