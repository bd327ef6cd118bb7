"""Prices: a bill is never above its quote, and every bucket is billed at its own rate."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.prices import CACHE_WRITES, RATES, Price, cost_nanos, quote_nanos

PICOS = st.integers(0, 10**9)
COUNT = st.integers(0, 10**6)
MARKUP = st.sampled_from([0, 1, 999_999, 1_000_000, 1_000_001, 1_250_000, 3_333_333])


@st.composite
def prices(draw: st.DrawFn) -> Price:
    optional = draw(
        st.dictionaries(st.sampled_from([rate for rate in RATES if rate not in ("input", "output")]), PICOS)
    )
    return Price(version=1, rates={"input": draw(PICOS), "output": draw(PICOS), **optional})


BUCKETS = (
    "input_uncached", "cache_read", "cache_write", *CACHE_WRITES, "output", "input_audio", "input_image",
    "output_audio", "output_image", "output_reasoning",
)  # fmt: skip
USAGE = st.fixed_dictionaries({}, optional=dict.fromkeys(BUCKETS, COUNT))
INPUTS = ("input_uncached", "cache_read", "cache_write", *CACHE_WRITES)


@given(prices(), USAGE, MARKUP)
def test_the_bill_is_never_above_the_quote(price: Price, usage: dict[str, int], markup: int) -> None:
    quote = quote_nanos(
        price,
        input_tokens=sum(usage.get(name, 0) for name in INPUTS),
        output_tokens=usage.get("output", 0),
        markup_ppm=markup,
    )
    assert 0 <= cost_nanos(price, usage, markup_ppm=markup) <= quote


@given(prices(), USAGE, st.sampled_from((*INPUTS, "output")), st.integers(1, 1000))
def test_more_usage_is_never_cheaper(price: Price, usage: dict[str, int], name: str, more: int) -> None:
    grown = {**usage, name: usage.get(name, 0) + more}
    if any(f"{name.removesuffix('_uncached')}_{kind}" in price.rates for kind in ("audio", "image")):
        usage = {k: v for k, v in usage.items() if not k.endswith(("audio", "image"))}
        grown = {**usage, name: usage.get(name, 0) + more}
    assert cost_nanos(price, grown) >= cost_nanos(price, usage)


FULL = Price(
    version=3,
    rates={
        "input": 1000, "output": 2000, "cached_input": 10, "cache_write_5m": 3000, "cache_write_1h": 4000,
        "input_audio": 5000, "output_audio": 6000, "input_image": 7000, "output_image": 8000, "request": 9_000_000,
    },
)  # fmt: skip


@pytest.mark.parametrize(
    ("usage", "nanos"),
    [
        ({}, 9000),
        ({"input_uncached": 5}, 9005),
        ({"input_uncached": 5, "input_audio": 2}, 9000 + 3 + 10),
        ({"input_uncached": 5, "input_audio": 2, "input_image": 1}, 9000 + 2 + 10 + 7),
        ({"input_uncached": 5, "input_audio": 9}, 9000 + 25),  # a part is never more than its whole
        ({"output": 5, "output_audio": 2, "output_image": 3, "output_reasoning": 4}, 9000 + 12 + 24),
        ({"cache_read": 100}, 9001),
        ({"cache_read": 1}, 9001),  # 10 pico-USD: rounded up, once
        ({"cache_write_5m": 1, "cache_write_1h": 1}, 9007),
        ({"cache_write_30m": 1}, 9004),  # no rate of its own: the dearest of its kind
        ({"cache_write": 1}, 9004),
    ],
)
def test_buckets_have_their_own_rates(usage: dict[str, int], nanos: int) -> None:
    assert cost_nanos(FULL, usage) == nanos


def test_what_has_no_rate_costs_what_its_parent_costs() -> None:
    plain = Price(version=1, rates={"input": 1000, "output": 2000})
    usage = {
        "input_uncached": 5,
        "input_audio": 2,
        "output": 3,
        "output_audio": 1,
        "cache_read": 1,
        "cache_write_1h": 1,
    }
    assert cost_nanos(plain, usage) == 5 + 6 + 1 + 1


def test_markup_is_in_the_one_rounding() -> None:
    price = Price(version=1, rates={"input": 1, "output": 1})
    assert cost_nanos(price, {"input_uncached": 1000}, markup_ppm=1_000_000) == 1
    assert cost_nanos(price, {"input_uncached": 1000}, markup_ppm=1_000_001) == 2
    assert cost_nanos(price, {"input_uncached": 1000}, markup_ppm=0) == 0


def test_names_that_are_no_bucket_cost_nothing() -> None:
    unknown: dict[str, Any] = {"total": 10**9, "service_tier": "priority"}
    assert cost_nanos(FULL, unknown) == 9000
