"""What usage costs: integer pico-USD rates, the dearest way a request can be billed, and the exact bill.

Usage is a mapping of disjoint buckets (docs/billing.md): inputs `input_uncached`, `cache_read`, `cache_write` or
`cache_write_{5m,1h,30m,12h}`; `output` in full; and, as parts of those that may have a rate of their own, `input_audio`,
`input_image`, `output_audio`, `output_image`. `output_reasoning` is inside `output`, and `input_tool` inside
`input_uncached`: both cost what the rest of it does. Beside them `web_searches`, `audio_seconds`, `requests`,
`tool_image_input` and `tool_image_output`; and, as text, `service_tier`, `speed` and `inference_geo` of who served.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from ledger.money import Nanos, round_up_to_nanos
from ledger.price_tables import HOUR_S, Table, Tables

Usage = Mapping[str, Any]
"""Whole numbers by bucket, and text by the names of `BASE`."""

PPM = 1_000_000
_UNIT = HOUR_S * PPM

BASE = {
    "service_tier": frozenset(("default", "standard", "auto", "on_demand")),
    "speed": frozenset(("standard",)),
    "inference_geo": frozenset(("global", "not_available")),
}
"""By the name under which usage says how a request was served: the answers that mean no variant."""


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Complete rates of a request with strictly more than so many input tokens, for all of it."""

    above_input_tokens: int
    rates: dict[str, int]


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Complete rates of one way to be served other than the usual one."""

    rates: dict[str, int]
    tiers: tuple[Tier, ...] = ()


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """Rates by the names of `price_tables.RATES`; `version` is what a usage event pins.

    `services` has variants by what a provider calls them: a service tier (`flex`), a speed (`fast`), a region (`us`), or
    several at once, sorted and joined (`fast+us`).
    """

    version: int
    rates: dict[str, int]
    tiers: tuple[Tier, ...] = ()
    services: dict[str, Variant] = {}

    @cached_property
    def tables(self) -> Tables:
        """The price worked out; made when it is first asked for, because a catalogue holds more than is used."""
        return Tables(_table(self), {name: _table(variant) for name, variant in self.services.items()})


class Bound(msgspec.Struct, frozen=True, gc=False):
    """The most that a request can use, but for output. `variants`: those that may serve it, beside base; None if any may."""

    input_tokens: int
    searches: int = 0
    seconds: int = 0
    requests: int = 1
    tool_image_input: int = 0
    tool_image_output: int = 0
    variants: tuple[str, ...] | None = None


def cost_nanos(price: Price, usage: Usage, *, markup_ppm: int = PPM) -> Nanos:
    """The exact bill for this usage, rounded up once. `markup_ppm` is a factor in millionths (1,000,000: none).

    What was served by a variant of a name that the price does not have is billed by the dearest of its tables: a name
    that came up since the price was made must not be billed at base (wire.md 7).
    """
    return round_up_to_nanos(markup_ppm * price.tables.ticks(usage, _served(usage)), _UNIT)


class Ceiling(msgspec.Struct, frozen=True, gc=False):
    """The most that a request can cost, in ticks: before any output, and for each token of it."""

    base: int
    token: int

    def nanos(self, output_tokens: int, *, markup_ppm: int = PPM) -> Nanos:
        """The most that it can cost with so much output."""
        return round_up_to_nanos(markup_ppm * (self.base + output_tokens * self.token), _UNIT)


def ceiling(price: Price, bound: Bound) -> Ceiling:
    """The most that usage within the bound can cost, whatever buckets the provider puts it in, and whoever serves it.

    Each quantity is at the dearest rate of all sheets that can apply, so no bill is above it (wire.md 8).
    """
    dearest = price.tables.dearest(bound.variants, bound.input_tokens)
    picos = bound.input_tokens * dearest.input + max(1, bound.requests) * dearest.request
    if bound.searches or bound.tool_image_input or bound.tool_image_output:
        picos += bound.searches * dearest.web_search
        picos += bound.tool_image_input * dearest.tool_image_input
        picos += bound.tool_image_output * dearest.tool_image_output
    return Ceiling(picos * HOUR_S + bound.seconds * dearest.second, dearest.output * HOUR_S)


def known_variants(price: Price) -> frozenset[str]:
    """The variants that the price has rates for; to ask for another one is to ask for something unpriced."""
    return frozenset(price.services)


_NONE: frozenset[str] = frozenset()
_KINDS = tuple(BASE.items())


def _served(usage: Usage) -> frozenset[str]:
    """The names of the variants that served; mostly none."""
    if usage.keys().isdisjoint(BASE):
        return _NONE
    return frozenset([name for kind, base in _KINDS if (name := usage.get(kind)) and name not in base])


def _table(rated: Price | Variant) -> Table:
    return Table(rated.rates, [(tier.above_input_tokens, tier.rates) for tier in rated.tiers])
