"""A price as people write it: what it means in integers, what it inherits, and what is refused."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from admin_api import price_form
from admin_api.fields import show_picos
from admin_api.price_form import PriceForm
from ledger.price_record import Price, Tier, Variant
from ledger.price_tables import RATES

BOTH = {"input_per_million_usd": "1", "output_per_million_usd": "2"}


def price(**more: Any) -> Price:
    return PriceForm.model_validate({**BOTH, **more}).price()


def test_every_rate_has_a_field() -> None:
    assert {price_form.field_of(rate) for rate in RATES} <= PriceForm.model_fields.keys()
    form = PriceForm.model_validate({price_form.field_of(rate): "0.5" for rate in RATES})
    others = {"request": 5 * 10**11, "second": 3_600 * 5 * 10**11, "web_search": 5 * 10**8}
    assert form.price().rates == {rate: others.get(rate, 500_000) for rate in RATES}


@pytest.mark.parametrize(
    ("field", "usd", "picos"),
    [
        ("per_second_usd", "0.0001", 360 * 10**9),
        ("per_hour_usd", "0.04", 40 * 10**9),
        ("per_hour_usd", "0.000000000001", 1),
        ("web_search_per_thousand_usd", "10", 10**10),
        ("web_search_per_thousand_usd", 0.000000001, 1),
    ],
)
def test_other_units(field: str, usd: Any, picos: int) -> None:
    rate = "web_search" if field.startswith("web") else "second"
    found = price(**{field: usd})
    assert found.rates[rate] == picos
    assert PriceForm.model_validate(price_form.show(found)).price() == found


@given(st.integers(0, 10**12), st.integers(1, 10**9))
def test_a_markup_never_loses_to_rounding(picos: int, ppm: int) -> None:
    rates = {f"{side}_per_million_usd": show_picos(picos, scale=10**6) for side in ("input", "output")}
    tier = {"above_input_tokens": 9, **rates}
    form = PriceForm.model_validate({**rates, "tiers": [tier], "service_tiers": {"flex": {**rates, "tiers": [tier]}}})
    made, exact = form.price(markup_ppm=ppm), Decimal(picos) * ppm / 10**6
    flex = made.services["flex"]
    for found in (made.rates, made.tiers[0].rates, flex.rates, flex.tiers[0].rates):
        assert 0 <= found["input"] - exact < 1


def test_what_a_tier_does_not_give_is_the_base() -> None:
    tiers = [{"above_input_tokens": 500, "input_per_million_usd": 9}, {"above_input_tokens": 200, "per_request_usd": 1}]
    assert price(tiers=tiers, cached_input_per_million_usd="0.1").tiers == (
        Tier(200, {"input": 10**6, "output": 2 * 10**6, "cached_input": 10**5, "request": 10**12}),
        Tier(500, {"input": 9 * 10**6, "output": 2 * 10**6, "cached_input": 10**5}),
    )


def test_a_service_tier_inherits_the_base_and_its_tiers_inherit_it() -> None:
    flex = {"input_per_million_usd": "0.5", "tiers": [{"above_input_tokens": 7, "output_per_million_usd": "3"}]}
    assert price(service_tiers={"flex": flex}).services == {
        "flex": Variant({"input": 500_000, "output": 2 * 10**6}, (Tier(7, {"input": 500_000, "output": 3 * 10**6}),))
    }
    assert price(service_tiers={"flex": {}}).services == {"flex": Variant({"input": 10**6, "output": 2 * 10**6})}


def test_long_input_is_never_cheaper_because_nobody_said_what_it_costs() -> None:
    """A service tier without `tiers`, of a price that has some."""
    tiers = [{"above_input_tokens": 7, "input_per_million_usd": "4"}]
    services = {
        "flex": {"input_per_million_usd": "0.5", "output_per_million_usd": "1"},
        "priority": {"input_per_million_usd": "5", "output_per_million_usd": "6"},
        "batch": {"input_per_million_usd": "0.5", "tiers": []},
    }
    found = price(tiers=tiers, service_tiers=services).services
    assert found["flex"].tiers == (Tier(7, {"input": 4 * 10**6, "output": 10**6}),)
    assert found["priority"].tiers == (Tier(7, {"input": 5 * 10**6, "output": 6 * 10**6}),)
    assert found["batch"].tiers == ()


def variant(name: str, **fields: Any) -> dict[str, Any]:
    return {"service_tiers": {name: fields}}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"tiers": [{"input_per_million_usd": "1"}]}, "tiers.0.above_input_tokens"),
        ({"tiers": [{"above_input_tokens": 0}]}, "tiers.0.above_input_tokens"),
        ({"tiers": [{"above_input_tokens": 5}, {"above_input_tokens": 5}]}, "tiers"),
        ({"tiers": [{"above_input_tokens": 5, "output_per_million_usd": "-1"}]}, "tiers.0.output_per_million_usd"),
        ({"tiers": [{"above_input_tokens": 5, "tiers": []}]}, "tiers.0.tiers"),
        ({"tiers": [{"above_input_tokens": n} for n in range(1, 12)]}, "tiers"),
        (
            {"service_tiers": {"flex": {"input_per_million_usd": "0.0000001"}}},
            "service_tiers.flex.input_per_million_usd",
        ),
        ({"service_tiers": {"flex": {"service_tiers": {}}}}, "service_tiers.flex.service_tiers"),
        ({"service_tiers": {"flex": {"tiers": [{}]}}}, "service_tiers.flex.tiers.0.above_input_tokens"),
        *((variant(name), f"service_tiers.{name}.[key]") for name in ("default", "global", "us+fast", "A", "a+a")),
        ({"service_tiers": {f"t{n}": {} for n in range(21)}}, "service_tiers"),
        ({"web_search_per_thousand_usd": "0.0000000001"}, "web_search_per_thousand_usd"),
        ({"per_second_usd": "2.6"}, "per_second_usd"),
        ({"per_hour_usd": "9001"}, "per_hour_usd"),
        ({"per_second_usd": "1", "per_hour_usd": "3600"}, ""),
        ({"input_per_million_usd": None}, "input_per_million_usd"),
    ],
)
def test_what_is_no_price_is_refused_by_field(more: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        price(**more)
    assert ".".join(str(part) for part in refused.value.errors()[0]["loc"]) == field


RATE_FIELDS = st.dictionaries(
    st.sampled_from([*map(price_form.field_of, RATES)]),
    st.integers(0, 10**6).map(lambda units: show_picos(units, scale=10**6)),
    max_size=4,
)


@st.composite
def tiers(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = draw(st.lists(st.integers(1, 9), unique=True, max_size=2))
    return [{"above_input_tokens": above, **draw(RATE_FIELDS)} for above in found]


@st.composite
def services(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(["flex", "fast", "us", "fast+us"]), unique=True, max_size=2))
    return {name: {**draw(RATE_FIELDS), **({"tiers": draw(tiers())} if draw(st.booleans()) else {})} for name in names}


@given(RATE_FIELDS, tiers(), services(), st.sampled_from([10**6, 1_100_001]))
def test_a_price_is_shown_as_one_that_means_the_same(
    rates: dict[str, str], tiers: Any, services: Any, markup_ppm: int
) -> None:
    form = {**BOTH, **rates, "tiers": tiers, "service_tiers": services}
    made = PriceForm.model_validate(form).price(markup_ppm=markup_ppm)
    assert PriceForm.model_validate(price_form.show(made)).price() == made
