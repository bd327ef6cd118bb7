"""What providers bill and genai-prices has no unit for, as a multiple of what it has (wire.md 2b and 7).

Without these, what is kept or served in a dearer way would be billed as the cheaper one. Each is marked as `derived` in the
book, so that nobody takes it for the source's.
"""

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal

from genai_prices.types import Tier, TieredPrices

Amount = Decimal | TieredPrices
Amounts = Mapping[str, Amount]

WRITE_12H = "cache_write_12h_mtok"
_TIMES_WRITE_12H = Decimal(2)  # of OpenAI's cache write, which is kept for 30 minutes
_TIMES_IN_US = Decimal("1.1")  # of all tokens, where Anthropic is asked to compute in the US
_FINEST = Decimal("1e-6")  # of USD per million tokens: a pico-USD per token


def with_longer_writes(provider: str, amounts: Amounts) -> dict[str, Amount]:
    """OpenAI's cache writes that are kept for 12 hours."""
    written = amounts.get("cache_write_mtok")
    if provider != "openai" or written is None:
        return dict(amounts)
    return {**amounts, WRITE_12H: times(written, _TIMES_WRITE_12H)}


def with_regions(provider: str, variants: Mapping[str, Amounts], base: Amounts) -> dict[str, Amounts]:
    """Anthropic's variants, and how they are billed in the US; other providers' as they are."""
    if provider != "anthropic":
        return dict(variants)
    in_us = {"us": _in_us(base)}
    if "fast" in variants:
        in_us["fast+us"] = _in_us(variants["fast"])
    return {**variants, **in_us}


def _in_us(amounts: Amounts) -> dict[str, Amount]:
    return {key: times(price, _TIMES_IN_US) if key.endswith("_mtok") else price for key, price in amounts.items()}


def times(price: Amount, factor: Decimal) -> Amount:
    """A multiple of a price, in every tier; never below it by rounding."""
    if isinstance(price, TieredPrices):
        tiers = [Tier(tier.start, _product(tier.price, factor)) for tier in price.tiers]
        return TieredPrices(base=_product(price.base, factor), tiers=tiers)
    return _product(price, factor)


def _product(price: Decimal, factor: Decimal) -> Decimal:
    return (price * factor).quantize(_FINEST, rounding=ROUND_CEILING)
