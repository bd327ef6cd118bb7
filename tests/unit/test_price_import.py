"""genai-prices as entries of the book: the same bill as its own, to the nano-dollar, and none of its guesses at names."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, data
from genai_prices.types import (
    ClauseEquals,
    ClauseOr,
    ClauseStartsWith,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from admin_api.price_form import PartialPriceForm
from ledger.money import round_up_to_nanos
from ledger.price_record import Price
from ledger.prices import cost_nanos, known_variants
from weir import price_gaps, price_import

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BASE = ModelPrice(input_mtok=Decimal("0.0375"), output_mtok=Decimal(2))


def model(prices: Any = BASE, variants: list[PriceVariant] | None = None, **more: Any) -> ModelInfo:
    return ModelInfo(**{"id": "m", "match": ClauseEquals("m"), "prices": prices, "price_variants": variants, **more})


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The entry of one model that the source has, or why there is none."""

    def of(info: ModelInfo, provider: str = "openai", at: datetime = NOW) -> Any:
        (source,) = (each for each in data.providers if each.id == price_import.PROVIDERS[provider])
        monkeypatch.setattr(source, "models", [info])
        found = price_import.entries(provider, at)
        return found.entries[0] if found.entries else found.unusable

    return of


def priced(form: dict[str, Any]) -> Price:
    return PartialPriceForm.model_validate(form).price()


# The bill


USED = [
    {"input_tokens": 7, "output_tokens": 3},
    {"input_tokens": 100_001, "cache_read_tokens": 50_000, "output_tokens": 999},
    {"input_tokens": 128_001, "output_tokens": 1, "web_searches": 3},
    {"input_tokens": 200_000, "output_tokens": 1},
    {"input_tokens": 200_001, "cache_read_tokens": 200_001, "output_tokens": 1},
    {"input_tokens": 272_001, "cache_write_tokens": 9, "cache_read_tokens": 13, "output_tokens": 5},
]


def ours(used: dict[str, int], context: dict[str, str], provider: str) -> dict[str, Any]:
    """The library's usage, whose input includes what was cached, as Weir's buckets."""
    read, written = used.get("cache_read_tokens", 0), used.get("cache_write_tokens", 0)
    return {
        "input_uncached": used["input_tokens"] - read - written,
        "cache_read": read,
        "cache_write" if provider == "openai" else "cache_write_5m": written,
        "output": used["output_tokens"],
        "web_searches": used.get("web_searches", 0),
        "service_tier": next(iter(context.values()), None),
    }


@pytest.mark.parametrize("provider", price_import.PROVIDERS)
def test_every_model_costs_what_the_source_says(provider: str) -> None:
    """Its own reckoning, of the very model: what it makes of names is not asked."""
    (source,) = (each for each in data.providers if each.id == price_import.PROVIDERS[provider])
    entries = {entry["model"]: priced(entry["price"]) for entry in price_import.entries(provider, NOW).entries}
    compared = 0
    for info in source.models:
        for name in price_import.exact_names(info):
            price = entries[name]
            if not {"input", "output"} <= price.rates.keys():
                continue
            for context in ({}, *(each.when for each in info.price_variants or ())):
                if not {*context.values()} <= {*known_variants(price), "default"}:
                    continue  # not in force yet
                for used in USED:
                    told = info.calc_price(Usage(**used), source, genai_request_timestamp=NOW, price_context=context)
                    exact = told.total_price * 10**12
                    assert exact == int(exact)
                    assert cost_nanos(price, ours(used, context, provider)) == round_up_to_nanos(int(exact))
                    compared += 1
    assert compared > 100


# Names


def test_names_are_exact() -> None:
    info = model(
        match=ClauseOr(
            [ClauseEquals("m"), ClauseEquals("m-2026"), ClauseStartsWith("m-x"), ClauseOr([ClauseEquals("n")])]
        )
    )
    assert price_import.exact_names(info) == ["m", "m-2026", "n"]
    assert price_import.exact_names(model(id="family", match=ClauseStartsWith("ft:m"))) == []
    assert price_import.exact_names(model(match=ClauseEquals("no name"))) == []


@pytest.mark.parametrize(
    ("provider", "name", "there"),
    [
        ("anthropic", "claude-sonnet-4-5", True),
        ("anthropic", "claude-sonnet-4-5-NOT-REAL", False),
        ("gemini", "gemini-2.5-pro", True),
        ("gemini", "gemini-2.5-pro-NOT-REAL", False),
        ("openai", "gpt-4.1", True),
        ("openai", "ft:gpt-4o", False),
        ("xai", "grok-4", True),
    ],
)
def test_what_only_begins_like_a_model_is_none(provider: str, name: str, there: bool) -> None:
    assert (name in {entry["model"] for entry in price_import.entries(provider, NOW).entries}) is there


def test_names_are_there_once_and_every_model_is_usable() -> None:
    for provider in price_import.PROVIDERS:
        entries, unusable = price_import.entries(provider, NOW)
        names = [entry["model"] for entry in entries]
        assert (names, unusable) == (sorted(set(names)), {})


# Amounts


def test_amounts_are_exact(entry: Any) -> None:
    price = ModelPrice(
        input_mtok=Decimal("0.037500"),
        output_mtok=Decimal("1E+1"),
        cache_write_mtok=Decimal(3),
        audio_hours=Decimal("0.36"),
        input_audio_hours=Decimal("0.36"),
        web_searches_kcount=Decimal(10),
        storage_searches_kcount=Decimal("2.5"),
    )
    made = entry(model(price, context_window=9), "gemini")
    assert made["price"] == {
        "input_per_million_usd": "0.0375",
        "output_per_million_usd": "10",
        "cache_write_5m_per_million_usd": "3",
        "per_hour_usd": "0.36",
        "web_search_per_thousand_usd": "10",
    }
    assert (made["left_out"], made["context_window"], made["derived"]) == ({"storage_searches_kcount": "2.5"}, 9, [])
    assert priced(made["price"]).rates["second"] == 36 * 10**10


@pytest.mark.parametrize("fine", [{"input_mtok": Decimal("1e-7")}, {"web_searches_kcount": Decimal("1e-10")}])
def test_what_is_finer_than_a_pico_is_not_rounded(entry: Any, fine: dict[str, Decimal]) -> None:
    assert "finer" in entry(model(ModelPrice(**fine)))["m"]
    tiered = TieredPrices(base=Decimal(1), tiers=[Tier(5, Decimal("1e-7"))])
    assert "finer" in entry(model(ModelPrice(output_mtok=tiered)))["m"]


def test_tiers_of_different_kinds_of_tokens_meet(entry: Any) -> None:
    prices = ModelPrice(
        input_mtok=TieredPrices(base=Decimal(1), tiers=[Tier(200, Decimal(2)), Tier(400, Decimal(4))]),
        cache_read_mtok=TieredPrices(base=Decimal("0.1"), tiers=[Tier(300, Decimal("0.3"))]),
        output_mtok=Decimal(9),
    )
    found = {t.above_input_tokens: t.rates for t in priced(entry(model(prices))["price"]).tiers}
    assert found == {
        200: {"input": 2 * 10**6, "cached_input": 10**5, "output": 9 * 10**6},
        300: {"input": 2 * 10**6, "cached_input": 3 * 10**5, "output": 9 * 10**6},
        400: {"input": 4 * 10**6, "cached_input": 3 * 10**5, "output": 9 * 10**6},
    }


# Variants


def variant(name: str, usd: int, *, kind: str = "service_tier", since: date | None = None) -> PriceVariant:
    constraint = StartDateConstraint(since) if since else None
    return PriceVariant(when={kind: name}, prices=ModelPrice(input_mtok=Decimal(usd)), constraint=constraint)


def test_variants_in_force_have_complete_rates_of_their_own(entry: Any) -> None:
    tiered = ModelPrice(input_mtok=TieredPrices(base=Decimal(5), tiers=[Tier(9, Decimal(6))]), output_mtok=Decimal(2))
    later = variant("ultra", 9, since=date(2026, 12, 1))
    price = priced(entry(model(tiered, [variant("flex", 1), variant("batch", 2, kind="processing"), later]))["price"])
    assert known_variants(price) == {"flex", "batch"}
    assert price.services["flex"].rates == {"input": 10**6, "output": 2 * 10**6}
    assert (len(price.tiers), price.services["flex"].tiers) == (1, ())


def test_the_usual_tier_by_name_is_the_base(entry: Any) -> None:
    named = PriceVariant(when={"service_tier": "default"}, prices=ModelPrice())
    assert "service_tiers" not in entry(model(variants=[named]))["price"]
    assert "usual service tier" in entry(model(variants=[variant("default", 5)]))["m"]


def test_several_at_once_are_joined(entry: Any) -> None:
    both = PriceVariant(when={"speed": "fast", "inference_geo": "eu"}, prices=ModelPrice(input_mtok=Decimal(7)))
    assert known_variants(priced(entry(model(variants=[both]))["price"])) == {"eu+fast"}


# Dates


def dated(usd: int, since: date) -> ConditionalPrice:
    return ConditionalPrice(StartDateConstraint(since), prices=ModelPrice(input_mtok=Decimal(usd)))


def test_the_price_in_force_is_imported_and_what_comes_is_shown(entry: Any) -> None:
    prices = [
        ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(1))),
        dated(2, date(2026, 11, 21)),
        dated(4, date(2027, 1, 1)),
        dated(3, date(2026, 12, 1)),
        dated(3, date(2026, 12, 8)),
    ]
    prices.sort(
        key=lambda each: each.constraint.start_date if isinstance(each.constraint, StartDateConstraint) else date.min
    )
    made = entry(model(prices, [variant("flex", 1, since=date(2026, 12, 24))]))
    assert made["price"] == {"input_per_million_usd": "2"}
    flex = {"tiers": [], "input_per_million_usd": "1"}
    assert made["upcoming"] == [
        {"starts": "2026-12-01", "price": {"input_per_million_usd": "3"}},
        {"starts": "2026-12-24", "price": {"input_per_million_usd": "3", "service_tiers": {"flex": flex}}},
        {"starts": "2027-01-01", "price": {"input_per_million_usd": "4", "service_tiers": {"flex": flex}}},
    ]
    assert entry(model(prices), at=datetime(2026, 11, 20, 23, 59, tzinfo=UTC))["price"] == {
        "input_per_million_usd": "1"
    }


def test_prices_by_the_time_of_day_are_refused(entry: Any) -> None:
    prices = [ConditionalPrice(prices=BASE), ConditionalPrice(TimeOfDateConstraint(time(1), time(2)), prices=BASE)]
    assert entry(model(prices)) == {"m": "its price depends on the time of day"}


# What the source has no unit for


def test_longer_cache_writes_of_openai_cost_twice_as_much(entry: Any) -> None:
    written = TieredPrices(base=Decimal("1.25"), tiers=[Tier(9, Decimal(2))])
    made = entry(
        model(ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1), cache_write_mtok=written), [variant("flex", 1)])
    )
    price = priced(made["price"])
    assert {name: price.rates[name] for name in price.rates if "write" in name} == {
        "cache_write": 1_250_000,
        "cache_write_30m": 1_250_000,
        "cache_write_12h": 2_500_000,
    }
    assert (
        price.tiers[0].rates["cache_write_12h"] == price.services["flex"].tiers[0].rates["cache_write_12h"] == 4 * 10**6
    )
    assert made["derived"] == ["cache_write_12h_per_million_usd"]


def test_anthropics_region_costs_a_tenth_more_for_tokens(entry: Any) -> None:
    prices = ModelPrice(input_mtok=Decimal(5), output_mtok=Decimal("0.000003"), web_searches_kcount=Decimal(10))
    made = entry(model(prices, [variant("fast", 10, kind="speed")]), "anthropic")
    price = priced(made["price"])
    assert price.services["us"].rates == {"input": 5_500_000, "output": 4, "web_search": 10**10}
    assert price.services["fast+us"].rates["input"] == 11 * 10**6
    assert made["derived"] == ["service_tiers.fast+us", "service_tiers.us"]


def test_a_multiple_is_never_below_the_exact_one() -> None:
    assert price_gaps.times(Decimal("0.000001"), Decimal("1.1")) == Decimal("0.000002")
