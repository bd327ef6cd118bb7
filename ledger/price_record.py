"""A version of a model's price, as the catalogue has it."""

from functools import cached_property

import msgspec

from ledger.price_tables import Table, Tables


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


def _table(rated: Price | Variant) -> Table:
    return Table(rated.rates, [(tier.above_input_tokens, tier.rates) for tier in rated.tiers])
