"""What usage costs: integer pico-USD rates, the dearest way a request can be billed, and the exact bill.

Usage is a mapping of disjoint buckets (docs/billing.md): inputs `input_uncached`, `cache_read`, `cache_write` or
`cache_write_{5m,1h,30m,12h}`; `output` in full; and, as parts of those that may have a rate of their own, `input_audio`,
`input_image`, `output_audio`, `output_image`. `output_reasoning` is inside `output` and priced as it.
"""

from collections.abc import Iterator, Mapping

import msgspec

from ledger.money import Nanos, round_up_to_nanos

Usage = Mapping[str, int]

CACHE_WRITES = ("cache_write_5m", "cache_write_1h", "cache_write_30m", "cache_write_12h")
RATES = (
    "input", "output", "cached_input", *CACHE_WRITES,
    "input_audio", "output_audio", "input_image", "output_image", "request",
)  # fmt: skip
PPM = 1_000_000


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pico-USD per token (or per request) by rate name; `version` is what a usage event pins."""

    version: int
    rates: dict[str, int]

    def rate(self, name: str, *fallbacks: str) -> int:
        """The rate of that name, else the dearest of the fallbacks that exist: never free by accident."""
        if name in self.rates:
            return self.rates[name]
        return max(self.rates[other] for other in fallbacks if other in self.rates)


def cost_nanos(price: Price, usage: Usage, *, markup_ppm: int = PPM) -> Nanos:
    """The exact bill for this usage, rounded up once. `markup_ppm` is a factor in millionths (1,000,000: none)."""
    return round_up_to_nanos((quantity * markup_ppm, picos, PPM) for quantity, picos in _parts(price, usage))


def quote_nanos(price: Price, *, input_tokens: int, output_tokens: int, markup_ppm: int = PPM) -> Nanos:
    """The most that a request of at most so many tokens can cost, whatever buckets the provider puts them in."""
    dearest_input = max(picos for name, picos in price.rates.items() if _is_input(name))
    dearest_output = max(picos for name, picos in price.rates.items() if name.startswith("output"))
    parts = (
        (input_tokens, dearest_input),
        (output_tokens, dearest_output),
        (1, price.rates.get("request", 0)),
    )
    return round_up_to_nanos((quantity * markup_ppm, picos, PPM) for quantity, picos in parts)


def _is_input(name: str) -> bool:
    return name.startswith(("input", "cache"))


def _parts(price: Price, usage: Usage) -> Iterator[tuple[int, int]]:
    """(quantity, pico-USD each) of every billable part; tokens with a rate of their own leave their parent's count."""
    for parent, total in (("input", usage.get("input_uncached", 0)), ("output", usage.get("output", 0))):
        left = total
        for kind in (f"{parent}_audio", f"{parent}_image"):
            if kind in price.rates:
                own = min(usage.get(kind, 0), left)
                left -= own
                yield own, price.rates[kind]
        yield left, price.rates[parent]
    yield usage.get("cache_read", 0), price.rate("cached_input", "input")
    yield usage.get("cache_write", 0), max(price.rate(name, *CACHE_WRITES, "input") for name in CACHE_WRITES)
    for name in CACHE_WRITES:
        yield usage.get(name, 0), price.rate(name, *CACHE_WRITES, "input")
    yield 1, price.rates.get("request", 0)
