"""What usage costs: integer pico-USD rates, the dearest way a request can be billed, and the exact bill.

Usage is a mapping of disjoint buckets (docs/billing.md): inputs `input_uncached`, `cache_read`, `cache_write` or
`cache_write_{5m,1h,30m,12h}`; `output` in full; and, as parts of those that may have a rate of their own, `input_audio`,
`input_image`, `output_audio`, `output_image`. `output_reasoning` is inside `output`, and `input_tool` inside
`input_uncached`: both cost what the rest of it does. Beside them `web_searches`, `audio_seconds`, `requests`,
`tool_image_input` and `tool_image_output`; and, as text, `service_tier`, `speed` and `inference_geo` of who served.
"""

from collections.abc import Mapping
from typing import Any, Final

from ledger.frozen import Frozen
from ledger.money import Nanos, round_up_to_nanos
from ledger.price_record import Price
from ledger.price_tables import HOUR_S

Usage = Mapping[str, Any]
"""Whole numbers by bucket, and text by the names of `BASE`."""

PPM: Final = 1_000_000
_UNIT: Final = HOUR_S * PPM

BASE: Final = {
    "service_tier": frozenset(("default", "standard", "auto", "on_demand")),
    "speed": frozenset(("standard",)),
    "inference_geo": frozenset(("global", "not_available")),
}
"""By the name under which usage says how a request was served: the answers that mean no variant."""


class Bound(Frozen, frozen=True):
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


class Ceiling(Frozen, frozen=True):
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


_NONE: Final[frozenset[str]] = frozenset()
_KINDS: Final = tuple(BASE.items())


def _served(usage: Usage) -> frozenset[str]:
    """The names of the variants that served; mostly none."""
    if usage.keys().isdisjoint(BASE):
        return _NONE
    return frozenset([name for kind, base in _KINDS if (name := usage.get(kind)) and name not in base])
