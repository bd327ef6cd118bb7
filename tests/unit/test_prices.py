"""Prices: a bill is never above its quote, and every bucket is billed at its own rate."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.price_record import Price, Tier, Variant
from ledger.price_tables import CACHE_WRITES, INPUT_BUCKETS, RATES
from ledger.prices import BASE, Bound, ceiling, cost_nanos

PICOS = st.integers(0, 10**9)
COUNT = st.integers(0, 10**6)
MARKUP = st.sampled_from([0, 1, 999_999, 1_000_000, 1_000_001, 1_250_000, 3_333_333])
NAMES = ("flex", "priority", "fast", "us")
ABOVE = (0, 1, 1_000, 200_000, 1_000_000)


@st.composite
def rates(draw: st.DrawFn) -> dict[str, int]:
    optional = draw(
        st.dictionaries(st.sampled_from([rate for rate in RATES if rate not in ("input", "output")]), PICOS)
    )
    return {"input": draw(PICOS), "output": draw(PICOS), **optional}


@st.composite
def tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    found = draw(st.lists(st.sampled_from(ABOVE), max_size=2, unique=True))
    return tuple(Tier(above, draw(rates())) for above in found)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    names = draw(st.lists(st.sampled_from([*NAMES, "fast+us", "fast+flex+us"]), max_size=3, unique=True))
    services = {name: Variant(draw(rates()), draw(tiers())) for name in names}
    return Price(1, draw(rates()), draw(tiers()), services)


BUCKETS = (
    *INPUT_BUCKETS, "output", "input_audio", "input_image", "input_tool", "output_audio", "output_image",
    "output_reasoning", "web_searches", "web_fetches", "audio_seconds", "requests", "tool_image_input", "tool_image_output",
    "cost_usd_ticks",
)  # fmt: skip
SERVED = ("default", "standard", "global", "fast+us", "ultrafast", *NAMES)
USAGE = st.fixed_dictionaries({}, optional=dict.fromkeys(BUCKETS, COUNT) | dict.fromkeys(BASE, st.sampled_from(SERVED)))


def the_bound(usage: dict[str, Any], variants: tuple[str, ...] | None) -> Bound:
    """The smallest bound that this usage is within, but for its output."""
    return Bound(
        input_tokens=sum(usage.get(name, 0) for name in INPUT_BUCKETS),
        searches=usage.get("web_searches", 0),
        seconds=usage.get("audio_seconds", 0),
        requests=usage.get("requests", 1),
        tool_image_input=usage.get("tool_image_input", 0),
        tool_image_output=usage.get("tool_image_output", 0),
        variants=variants,
    )


def served(usage: dict[str, Any]) -> tuple[str, ...]:
    """The variants that served."""
    return tuple(usage[kind] for kind, base in BASE.items() if usage.get(kind) and usage[kind] not in base)


@pytest.mark.wire("8.4")
@given(prices(), USAGE, MARKUP, st.data())
def test_the_bill_is_never_above_the_quote(
    price: Price, usage: dict[str, Any], markup: int, data: st.DataObject
) -> None:
    more = data.draw(st.lists(st.sampled_from([*NAMES, "fast+us", "ultrafast"]), max_size=2))
    for variants in (None, served(usage), (*served(usage), *more)):
        smallest = the_bound(usage, variants)
        room = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(Bound.__struct_fields__[:-1], COUNT)))
        bound = replace(smallest, **{name: getattr(smallest, name) + extra for name, extra in room.items()})
        written, longer = usage.get("output", 0), data.draw(COUNT)
        for one, output in ((smallest, written), (bound, written), (bound, written + longer), (bound, written)):
            quote = ceiling(price, one).nanos(output, markup_ppm=markup)
            assert 0 <= cost_nanos(price, usage, markup_ppm=markup) <= quote


@given(
    prices(), USAGE, st.sampled_from((*INPUT_BUCKETS, "output", "web_searches", "audio_seconds")), st.integers(1, 1000)
)
def test_more_usage_is_never_cheaper(price: Price, usage: dict[str, Any], name: str, more: int) -> None:
    flat = Price(1, price.rates, (), {name: Variant(variant.rates) for name, variant in price.services.items()})
    usage = {k: v for k, v in usage.items() if not k.endswith(("audio", "image"))}
    grown = {**usage, name: usage.get(name, 0) + more}
    assert cost_nanos(flat, grown) >= cost_nanos(flat, usage)


@given(prices())
def test_a_price_is_read_as_it_was_written(price: Price) -> None:
    again = msgspec.json.decode(msgspec.json.encode(price), type=Price)
    assert again == price
    assert cost_nanos(again, {"output": 10**6}) == cost_nanos(price, {"output": 10**6})


def test_a_price_of_before_there_were_tiers_is_read() -> None:
    stored = b'{"version":3,"rates":{"input":1000,"output":2000}}'
    price = msgspec.json.decode(stored, type=Price)
    assert (price.tiers, price.services) == ((), {})
    assert msgspec.json.encode(price) == stored
    assert cost_nanos(price, {"input_uncached": 1, "service_tier": "flex"}) == 1


FULL = Price(
    version=3,
    rates={
        "input": 1000, "output": 2000, "cached_input": 10, "cache_write_5m": 3000, "cache_write_1h": 4000,
        "input_audio": 5000, "output_audio": 6000, "input_image": 7000, "output_image": 8000, "request": 9_000_000,
        "second": 7_200_000, "web_search": 10_000, "tool_image_output": 40_000,
    },
)  # fmt: skip


@pytest.mark.wire("4.2", "7.5")
@pytest.mark.parametrize(
    ("usage", "nanos"),
    [
        ({}, 9000),
        ({"input_uncached": 5}, 9005),
        ({"input_uncached": 5, "input_audio": 2}, 9000 + 3 + 10),
        ({"input_uncached": 5, "input_audio": 2, "input_image": 1}, 9000 + 2 + 10 + 7),
        ({"input_uncached": 5, "input_audio": 9}, 9000 + 25),  # a part is never more than its whole
        ({"input_uncached": 5, "input_audio": 4, "input_image": 9}, 9000 + 20 + 7),
        ({"input_uncached": 5, "input_tool": 3}, 9005),
        ({"output": 5, "output_audio": 2, "output_image": 3, "output_reasoning": 4}, 9000 + 12 + 24),
        ({"cache_read": 100}, 9001),
        ({"cache_read": 1}, 9001),  # 10 pico-USD: rounded up, once
        ({"cache_write_5m": 1, "cache_write_1h": 1}, 9007),
        ({"cache_write_30m": 1}, 9004),  # no rate of its own: the dearest of its kind
        ({"cache_write": 1}, 9004),
        ({"web_searches": 3}, 9030),
        ({"web_fetches": 3, "cost_usd_ticks": 10**9}, 9000),
        ({"audio_seconds": 2}, 9004),  # 7,200,000 pico-USD in an hour are 2,000 in a second
        ({"requests": 0}, 9000),
        ({"requests": 1}, 9000),
        ({"requests": 3}, 27_000),
        ({"tool_image_output": 1}, 9040),
        ({"tool_image_input": 1}, 9007),  # no rate of its own: the dearest input
    ],
)
def test_buckets_have_their_own_rates(usage: dict[str, int], nanos: int) -> None:
    assert cost_nanos(FULL, usage) == nanos


@pytest.mark.wire("7.5")
def test_what_has_no_rate_costs_what_its_parent_costs() -> None:
    plain = Price(version=1, rates={"input": 1000, "output": 2000})
    usage = {
        "input_uncached": 5,
        "input_audio": 2,
        "output": 3,
        "output_audio": 1,
        "cache_read": 1,
        "cache_write_1h": 1,
        "tool_image_input": 1,
        "tool_image_output": 1,
        "web_searches": 1,
        "audio_seconds": 1,
    }
    assert cost_nanos(plain, usage) == 5 + 6 + 1 + 1 + 1 + 2


@pytest.mark.wire("7.5")
def test_a_cache_write_of_unknown_length_has_a_rate_of_its_own_or_the_dearest() -> None:
    rates = {"input": 1000, "output": 1, "cache_write_30m": 2000, "cache_write_12h": 4000}
    assert cost_nanos(Price(1, rates), {"cache_write": 1}) == 4
    own = Price(1, {**rates, "cache_write": 3000})
    assert [cost_nanos(own, {name: 1}) for name in ("cache_write", "cache_write_30m", "cache_write_5m")] == [3, 2, 4]
    alone = Price(1, {"input": 1000, "output": 1, "cache_write": 3000})
    assert cost_nanos(alone, {"cache_write_12h": 1}) == 3


def test_seconds_divide_in_the_one_rounding() -> None:
    price = Price(version=1, rates={"input": 0, "output": 0, "second": 3_600_000 + 1})
    assert cost_nanos(price, {"audio_seconds": 1}) == 2
    assert cost_nanos(price, {"audio_seconds": 3_599_000}) == 3_599_000 + 1
    assert cost_nanos(price, {"audio_seconds": 3_600_000}) == 3_600_000 + 1
    assert cost_nanos(price, {"audio_seconds": 3_600_001}) == 3_600_000 + 3


def test_markup_is_in_the_one_rounding() -> None:
    price = Price(version=1, rates={"input": 1, "output": 1})
    assert cost_nanos(price, {"input_uncached": 1000}, markup_ppm=1_000_000) == 1
    assert cost_nanos(price, {"input_uncached": 1000}, markup_ppm=1_000_001) == 2
    assert cost_nanos(price, {"input_uncached": 1000}, markup_ppm=0) == 0


def test_names_that_are_no_bucket_cost_nothing() -> None:
    unknown: dict[str, Any] = {"total": 10**9, "service_tier": "priority"}
    assert cost_nanos(FULL, unknown) == 9000


@pytest.mark.wire("8.4")
@pytest.mark.parametrize(
    ("more", "nanos"),
    [
        ({}, 0),
        ({"input_tokens": 2}, 14),  # an image token's rate, the dearest
        ({"output_tokens": 2}, 16),
        ({"searches": 2}, 20),
        ({"seconds": 2}, 4),
        ({"requests": 0}, 0),
        ({"requests": 3}, 18_000),
        ({"tool_image_input": 2}, 14),
        ({"tool_image_output": 2}, 80),
    ],
)
def test_a_quote_has_every_quantity_at_its_dearest_rate(more: dict[str, Any], nanos: int) -> None:
    bound = replace(Bound(0), **{name: value for name, value in more.items() if name != "output_tokens"})
    assert ceiling(FULL, bound).nanos(more.get("output_tokens", 0)) == 9000 + nanos


@pytest.mark.wire("7.3")
def test_every_input_bucket_opens_tiers() -> None:
    assert {"input_uncached", "cache_read", "cache_write", *CACHE_WRITES} == {*INPUT_BUCKETS}
