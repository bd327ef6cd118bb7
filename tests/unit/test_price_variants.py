"""Which of a price's tables a request is billed by: by how long its input is, and by who served it."""

from typing import Any

import pytest

from ledger.price_record import Price, Tier, Variant
from ledger.prices import Bound, ceiling, cost_nanos, known_variants

# Tiers by input length

TIERED = Price(
    1,
    {"input": 1000, "output": 2000},
    (Tier(1_000, {"input": 5000, "output": 6000}), Tier(100, {"input": 3000, "output": 4000})),
)


@pytest.mark.wire("7.3")
@pytest.mark.parametrize(
    ("usage", "nanos"),
    [
        ({"input_uncached": 100, "output": 1}, 100 + 2),
        ({"input_uncached": 101, "output": 1}, 303 + 4),  # all of it, not what is above
        ({"input_uncached": 50, "cache_read": 30, "cache_write_1h": 21}, 303),
        ({"cache_write": 1_000}, 3_000),
        ({"input_uncached": 1_001, "output": 1}, 5_005 + 6),
        ({"output": 10_000, "tool_image_input": 500}, 20_000 + 500),  # what is no input opens no tier
    ],
)
def test_strictly_above_its_threshold_a_tier_prices_the_whole_request(usage: dict[str, int], nanos: int) -> None:
    assert cost_nanos(TIERED, usage) == nanos


@pytest.mark.wire("7.3", "8.4")
def test_a_quote_has_the_dearest_tier_that_can_be_reached() -> None:
    assert [ceiling(TIERED, Bound(tokens)).nanos(1) for tokens in (0, 100, 101, 1_000, 1_001)] == [
        *(2, 102, 307, 3_004, 5_011),
    ]
    cheaper = Price(1, TIERED.rates, (Tier(100, {"input": 10, "output": 20}),))
    assert ceiling(cheaper, Bound(200)).nanos(1) == 202  # the request may turn out to be below the threshold


# Variants


def one(picos: int, *tiers: Tier) -> Variant:
    return Variant({"input": picos, "output": picos}, tiers)


SERVICES = {"flex": one(500), "fast": one(8_000), "priority": one(3_000), "us": one(2_000), "fast+us": one(7_000)}
VARIED = Price(1, {"input": 1000, "output": 1000}, (), SERVICES)


@pytest.mark.wire("1b.6", "2b.7", "7.1")
@pytest.mark.parametrize(
    ("how", "nanos"),
    [
        ({}, 1),
        *(({"service_tier": name}, 1) for name in ("default", "standard", "auto", "on_demand", "")),
        ({"speed": "standard", "inference_geo": "global", "service_tier": "standard"}, 1),
        ({"inference_geo": "not_available"}, 1),
        ({"service_tier": "priority"}, 3),
        ({"speed": "fast"}, 8),
        ({"inference_geo": "us", "service_tier": "standard"}, 2),
        ({"speed": "fast", "inference_geo": "us"}, 7),  # both at once have rates of their own
        ({"service_tier": "priority", "inference_geo": "us"}, 3),  # they have none: the dearer of the two
        ({"service_tier": "priority", "speed": "fast", "inference_geo": "us"}, 8),
        ({"service_tier": "ultrafast"}, 8),  # not known: the dearest there is
        ({"service_tier": "ultrafast", "inference_geo": "us"}, 8),
        ({"service_tier": "global"}, 8),  # a region's word says nothing about a tier
    ],
)
def test_who_served_decides_the_table(how: dict[str, Any], nanos: int) -> None:
    assert cost_nanos(VARIED, {"input_uncached": 1, **how}) == nanos


@pytest.mark.wire("7.1")
def test_an_unknown_name_is_billed_by_the_dearest_for_this_usage() -> None:
    services = {"a": Variant({"input": 1000, "output": 9000}), "b": Variant({"input": 9000, "output": 1000})}
    price = Price(1, {"input": 1, "output": 1}, (), services)
    assert cost_nanos(price, {"input_uncached": 2, "output": 1, "speed": "new"}) == 19
    assert cost_nanos(price, {"input_uncached": 1, "output": 2, "speed": "new"}) == 19


def test_a_variant_has_tiers_of_its_own() -> None:
    price = Price(1, {"input": 1000, "output": 1000}, (), {"flex": one(500, Tier(10, {"input": 700, "output": 700}))})
    assert cost_nanos(price, {"input_uncached": 20}) == 20
    assert cost_nanos(price, {"input_uncached": 20, "service_tier": "flex"}) == 14
    assert cost_nanos(price, {"input_uncached": 10, "service_tier": "flex"}) == 5


@pytest.mark.wire("8.4")
@pytest.mark.parametrize(
    ("variants", "nanos"),
    [
        (None, 8),
        ((), 1),
        (("flex",), 1),
        (("priority",), 3),
        (("priority", "us"), 3),
        (("us", "fast"), 8),
        (("fast+us",), 8),
        (("ultrafast",), 8),
    ],
)
def test_a_quote_covers_who_may_serve(variants: tuple[str, ...] | None, nanos: int) -> None:
    assert ceiling(VARIED, Bound(1, variants=variants)).nanos(0) == nanos
    assert ceiling(VARIED, Bound(1, variants=variants)).nanos(0) == nanos


def test_quotes_for_different_variants_do_not_mix() -> None:
    price = Price(1, VARIED.rates, (), SERVICES)
    asked: list[tuple[str, ...]] = [("fast",), (), ("us",), ("us", "fast"), ("fast",), ()]
    assert [ceiling(price, Bound(1, variants=variants)).nanos(0) for variants in asked] == [8, 1, 2, 8, 8, 1]


def test_known_variants() -> None:
    assert known_variants(VARIED) == {"flex", "fast", "priority", "us", "fast+us"}
    assert known_variants(TIERED) == frozenset()
