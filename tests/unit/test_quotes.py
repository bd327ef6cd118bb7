"""A charge is at most its quote: for every answer in the fixtures, at any price, with a request that could have led to it.

The model takes and writes exactly as much as the answer used, and the body has no byte more than it must: a quote that
leaves anything out is too small for some price.
"""

from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway import quotes
from gateway.dialects.shape import Asked
from ledger.money import MAX_NANOS
from ledger.price_record import Price, Tier, Variant
from ledger.price_tables import INPUT_BUCKETS, RATES
from ledger.prices import BASE, cost_nanos
from tests.billing import Priced
from tests.corpus import SAMPLES, Sample
from tests.plausible import Usage, inputs, request_for, served_by
from tests.unit.test_prices import MARKUP, prices

# Beyond what a quote promises (docs/wire.md 8.5): what is promised of such an answer is the rest.
BEYOND: dict[str, Usage] = {
    # Images that a hosted tool draws.
    "openai_responses": {"tool_image_input": 0, "tool_image_output": 0},
    "openai_responses_drawn": {"tool_image_input": 0, "tool_image_output": 0},
    # The model that writes an SVG: gateway/dialects/openai/images.py says that its tokens are in no quote.
    "openai_images_svg": {"input_uncached": 10, "output": 272, "output_reasoning": 0},
    # Contexts that the provider reads, and answers that it writes, beside the one that was asked for.
    "anthropic_compaction": {"input_uncached": 100, "cache_read": 40, "cache_write_5m": 0, "output": 50},
    "anthropic_compactions_stream": {"input_uncached": 100, "output": 50},
    "anthropic_advisor": {"input_uncached": 100, "output": 50},
    "anthropic_fallback_left_out": {"input_uncached": 100, "output": 50},
}


def _charged(sample: Sample) -> Usage | None:
    """What the answer is charged for; None if it reports nothing or costs nothing."""
    meter = sample.endpoint.meter(sample.asked, sample.kind)
    for piece in (sample.body, b""):
        meter.feed(piece)
    meter.finish()
    usage = meter.usage()
    return None if sample.endpoint.free or not usage else dict(usage)


PRICED = {sample.name: (sample, usage) for sample in SAMPLES if (usage := _charged(sample)) is not None}
every_answer = pytest.mark.parametrize("name", PRICED)


def quoted(price: Price, markup_ppm: int, usage: Usage, asked: Asked, body_bytes: int) -> int:
    """What is held of a model that takes and writes just as much."""
    most = max(-(-usage.get("output", 0) // asked.choices), 1)
    priced = Priced(price, markup_ppm, max(inputs(usage), 1), most)
    return quotes.quote(priced.model, asked, body_bytes, markup_ppm).amounts[0]


def promised(name: str) -> tuple[Sample, Usage]:
    sample, usage = PRICED[name]
    return sample, {bucket: value for bucket, value in (usage | BEYOND.get(name, {})).items() if value}


def only(rate: str) -> dict[str, int]:
    """Rates of which one costs: nothing else can make up for it."""
    return {"input": 0, "output": 0, rate: 3_600_000}


@pytest.mark.wire("8.1", "8.2", "8.4", "8.6", "7.3")
@every_answer
def test_every_rate_is_held_for(name: str) -> None:
    """By itself; in the tier that so much input reaches; and in the variant that served."""
    sample, usage = promised(name)
    asked, body_bytes = request_for(sample, usage)
    served = "+".join(sorted(served_by(usage).values()))
    for rate in RATES:
        ways = [Price(1, only(rate)), Price(1, only("input"), (Tier(max(inputs(usage) - 1, 0), only(rate)),))]
        ways += [Price(1, only("input"), (), {served: Variant(only(rate))})] if served else []
        for price in ways:
            assert cost_nanos(price, usage) <= quoted(price, 1_000_000, usage, asked, body_bytes), rate


@pytest.mark.wire("8.4")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(price=prices(), markup=MARKUP)
def test_no_answer_costs_more_than_its_quote(price: Price, markup: int) -> None:
    for name in PRICED:
        sample, usage = promised(name)
        asked, body_bytes = request_for(sample, usage)
        assert cost_nanos(price, usage, markup_ppm=markup) <= quoted(price, markup, usage, asked, body_bytes), name


@pytest.mark.wire("2b.7", "8.4")
@pytest.mark.parametrize(
    "dearest", ["priority", "fast", "us", "fast+us", "fast+priority", "priority+us", "fast+priority+us"]
)
def test_who_is_not_named_may_serve_and_is_held_for(dearest: str) -> None:
    """Anthropic: the tier by `auto`, which is also what nothing means, and the region by the workspace's default."""
    price = Price(
        1, {"input": 1, "output": 1}, (), {name: Variant({"input": 9, "output": 9}) for name in ("batch", dearest)}
    )
    sample, usage = promised("anthropic_thinking")
    asked_for = product((None, "auto", "standard_only"), (None, "standard", "fast"), (None, "global", "us"))
    for tier, speed, region in asked_for:
        more = {"service_tier": tier, "speed": speed, "inference_geo": region}
        asked, body_bytes = request_for(sample, usage, **{name: value for name, value in more.items() if value})
        held = quoted(price, 1_000_000, usage, asked, body_bytes)
        tiers = ("standard",) if tier == "standard_only" else ("standard", "priority")
        for who, where in product(tiers, (region,) if region else ("not_available", "global", "us")):
            served = {"service_tier": who, "speed": speed or "standard", "inference_geo": where}
            assert cost_nanos(price, usage | served) <= held, (more, served)


@pytest.mark.wire("8.5")
@pytest.mark.parametrize("name", BEYOND)
def test_what_a_quote_does_not_promise_is_more_than_it(name: str) -> None:
    """Otherwise it would be no exception."""
    flat = Price(1, {"input": 1_000_000, "output": 1_000_000})
    sample, part = promised(name)
    asked, body_bytes = request_for(sample, part)
    assert (
        cost_nanos(flat, PRICED[name][1]) > quoted(flat, 1_000_000, part, asked, body_bytes) >= cost_nanos(flat, part)
    )


def test_every_kind_of_usage_is_among_the_answers() -> None:
    buckets = {bucket for _, usage in PRICED.values() for bucket in usage}
    assert buckets > {
        *INPUT_BUCKETS, "output", "input_audio", "input_image", "output_audio", "output_image", "input_tool", "web_searches",
        "audio_seconds", "requests", "tool_image_input", "tool_image_output", *BASE,
    }  # fmt: skip
    assert {served for _, usage in PRICED.values() for served in served_by(usage).values()} >= {
        "priority",
        "flex",
        "fast",
        "us",
    }
    assert len(PRICED) > 75


@pytest.mark.wire("8.3")
def test_without_a_cap_the_models_longest_output_is_held_or_one_that_is_set() -> None:
    sample, usage = promised("openai_chat")
    asked, size = request_for(sample, usage)
    price = Price(1, {"input": 0, "output": 1_000})
    model = Priced(price, max_output_tokens=100_000).model
    uncapped = replace(asked, cap=None)
    quote = quotes.quote(model, uncapped, size, 1_000_000)
    assert quote.caps == [100_000, 65_536, 32_768, 16_384, 8_192, 4_096]
    assert quote.amounts == quote.caps
    assert [quotes.must_say(model, uncapped, cap) for cap in quote.caps] == [False, *[True] * 5]
    assert quotes.quote(model, replace(uncapped, capped=False), size, 1_000_000).caps == [100_000]
    assert quotes.quote(model, replace(asked, cap=7, choices=3), size, 1_000_000).amounts == [21]
    assert quotes.quote(model, replace(asked, cap=10**9), size, 1_000_000).caps == [100_000]


def test_a_model_that_thinks_first_is_not_set_a_cap_that_it_would_think_away() -> None:
    sample, usage = promised("openai_chat")
    asked, size = request_for(sample, usage)
    uncapped = replace(asked, cap=None)
    plain = Priced(Price(1, {"input": 0, "output": 1_000}), max_output_tokens=100_000).model
    thinks = replace(plain, reasons=True)
    assert quotes.quote(thinks, uncapped, size, 1_000_000).caps == [100_000, 65_536, 32_768, 16_384]
    assert quotes.quote(plain, uncapped, size, 1_000_000, [thinks]).caps == [100_000, 65_536, 32_768, 16_384]
    short = replace(thinks, max_output_tokens=9_000)
    assert quotes.quote(short, uncapped, size, 1_000_000).caps == [9_000]


def test_no_quote_is_more_than_an_amount_can_be() -> None:
    sample, usage = promised("openai_chat")
    asked, size = request_for(sample, usage)
    model = Priced(Price(1, {"input": 0, "output": 10**15})).model
    assert quotes.quote(model, replace(asked, cap=10_000), size, 1_000_000).amounts == [MAX_NANOS]


def test_a_quote_with_fallbacks_covers_each_model_up_to_its_own_cap() -> None:
    sample, usage = promised("openai_chat")
    asked, size = request_for(sample, usage)
    cheap = Priced(Price(1, {"input": 0, "output": 1_000}), max_output_tokens=100_000).model
    short = Priced(Price(2, {"input": 0, "output": 5_000}), max_output_tokens=10_000).model
    uncapped = replace(asked, cap=None)
    quote = quotes.quote(cheap, uncapped, size, 1_000_000, [short])
    assert quote.caps == [100_000, 65_536, 32_768, 16_384, 8_192, 4_096]
    assert quote.amounts == [100_000, 65_536, 50_000, 50_000, 40_960, 20_480]
    assert quotes.quote(short, uncapped, size, 1_000_000, [cheap]).amounts == quote.amounts
    assert quotes.quote(cheap, replace(asked, cap=100), size, 1_000_000, [short]).amounts == [500]
    fits = quotes.affordable_cap([cheap, short], replace(asked, cap=1_000), size, 1_000_000, left=2_500)
    assert fits == 500


def test_the_cap_that_would_fit_is_the_largest_that_does() -> None:
    sample, usage = promised("openai_chat")
    asked, size = request_for(sample, usage)
    asked = replace(asked, by_reference=False)
    model = Priced(Price(1, {"input": 1_000, "output": 2_000})).model
    for left in (0, size - 1, size, size + 1, size + 2, size + 100, 10**9):
        cap = quotes.affordable_cap([model], replace(asked, cap=1_000), size, 1_000_000, left=left)
        assert cap == min(max((left - size) // 2, 0), 1_000)
    assert quotes.affordable_cap([model], replace(asked, cap=None), size, 1_000_000, left=10**9) == 0


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_quote_grows_with_the_body(one: int, more: int) -> None:
    sample, usage = promised("openai_chat")
    asked, _ = request_for(sample, usage)
    shown = replace(asked, by_reference=False, variants=())
    model = Priced(Price(1, {"input": 1_000, "output": 0}), max_input_tokens=500_000).model
    small, large = (quotes.quote(model, shown, size, 1_000_000).amounts[0] for size in (one, one + more))
    assert small == min(one, 500_000) <= large == min(one + more, 500_000)
