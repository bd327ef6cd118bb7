"""A price as people write it, and the integer rates that it means.

USD per million tokens become pico-USD per token ("0.0375" is 37,500), exactly or not at all; the markup multiplies each
rate and rounds up to a whole pico-USD, so a markup never loses to rounding.

What a tier or a service tier does not give is that of the base; what a tier of a service tier does not give is that of
the service tier. A service tier without `tiers` has the base's, at the dearer of each tier's rate and its own: it would
otherwise be cheaper the longer the input is, because nobody said what it costs. `tiers: []` says that it has none.
"""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from admin_api.fields import (
    PICOS_PER_USD_PER_MILLION,
    Body,
    Tokens,
    UsdEach,
    UsdPerHour,
    UsdPerMillion,
    UsdPerSecond,
    UsdPerThousand,
    show_picos,
)
from ledger.money import PICOS_PER_USD
from ledger.price_record import Price, Tier, Variant
from ledger.price_tables import HOUR_S, RATES
from ledger.prices import BASE, PPM

_THOUSAND = 1_000
_NOT_PER_MILLION = {
    "request": "per_request_usd",
    "second": "per_second_usd",
    "web_search": "web_search_per_thousand_usd",
}
_USUAL = frozenset().union(*BASE.values())


def field_of(rate: str) -> str:
    """The field that sets a rate of `price_tables.RATES`: `input_per_million_usd` of `input`."""
    return _NOT_PER_MILLION.get(rate, f"{rate}_per_million_usd")


class RatesForm(Body):
    """USD per million tokens unless the name says otherwise; what has no rate of its own costs its parent's dearest."""

    input_per_million_usd: UsdPerMillion | None = None
    output_per_million_usd: UsdPerMillion | None = None
    cached_input_per_million_usd: UsdPerMillion | None = None
    cache_write_per_million_usd: UsdPerMillion | None = None
    """Of a write that is reported without how long it is kept."""
    cache_write_5m_per_million_usd: UsdPerMillion | None = None
    cache_write_1h_per_million_usd: UsdPerMillion | None = None
    cache_write_30m_per_million_usd: UsdPerMillion | None = None
    cache_write_12h_per_million_usd: UsdPerMillion | None = None
    input_audio_per_million_usd: UsdPerMillion | None = None
    output_audio_per_million_usd: UsdPerMillion | None = None
    input_image_per_million_usd: UsdPerMillion | None = None
    output_image_per_million_usd: UsdPerMillion | None = None
    tool_image_input_per_million_usd: UsdPerMillion | None = None
    tool_image_output_per_million_usd: UsdPerMillion | None = None
    per_request_usd: UsdEach | None = None
    per_second_usd: UsdPerSecond | None = None
    per_hour_usd: UsdPerHour | None = None
    """The same rate as `per_second_usd`, for one that is not a decimal number per second."""
    web_search_per_thousand_usd: UsdPerThousand | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if self.per_second_usd is not None and self.per_hour_usd is not None:
            raise ValueError("give per_second_usd or per_hour_usd, which are the same rate")
        return self

    def given(self) -> dict[str, int]:
        """The rates that this form gives, in pico-USD, without markup."""
        named = {rate: getattr(self, field_of(rate)) for rate in RATES}
        if self.per_hour_usd is not None:
            named["second"] = self.per_hour_usd
        return {rate: picos for rate, picos in named.items() if picos is not None}


class TierForm(RatesForm):
    """What a request with more than so many input tokens (cache reads and writes among them) costs, all of it."""

    above_input_tokens: Tokens


def _apart(tiers: list[TierForm]) -> list[TierForm]:
    if len({tier.above_input_tokens for tier in tiers}) < len(tiers):
        raise ValueError("two tiers begin above the same number of input tokens")
    return tiers


Tiers = Annotated[list[TierForm], Field(max_length=10), AfterValidator(_apart)]


class ServiceTierForm(RatesForm):
    """What a request costs that was served otherwise than usual: `flex`, `priority`, `batch`, `fast`, in the region `us`."""

    tiers: Tiers | None = None


def _variant(name: str) -> str:
    parts = name.split("+")
    if parts != sorted(set(parts)):
        raise ValueError('several at once are joined in alphabetical order, such as "fast+us"')
    if _USUAL & {*parts}:
        raise ValueError("is the usual way to be served; what it costs is the price itself")
    return name


_WORD = "[a-z0-9][a-z0-9_-]{0,31}"
VariantName = Annotated[str, Field(pattern=rf"^{_WORD}(\+{_WORD}){{0,3}}$"), AfterValidator(_variant)]


class PartialPriceForm(ServiceTierForm):
    """A price, as far as somebody says what it is: a source of prices may know no output rate."""

    service_tiers: Annotated[dict[VariantName, ServiceTierForm], Field(max_length=20)] | None = None

    def price(self, *, markup_ppm: int = PPM) -> Price:
        """The price with all that is inherited, markup included; not numbered yet."""
        base, tiers = self.given(), self.tiers or []
        services = {}
        for name, form in sorted((self.service_tiers or {}).items()):
            rates = {**base, **form.given()}
            services[name] = Variant(rates, _tiers(rates, form.tiers, inherited=tiers))
        return marked_up(Price(0, base, _tiers(base, tiers, inherited=[]), services), markup_ppm)


class PriceForm(PartialPriceForm):
    """A model's price."""

    input_per_million_usd: UsdPerMillion
    output_per_million_usd: UsdPerMillion


def _tiers(rates: dict[str, int], given: list[TierForm] | None, *, inherited: list[TierForm]) -> tuple[Tier, ...]:
    """The tiers of a table with these rates: those given, else those inherited, never below the table's own rates."""
    found = {form.above_input_tokens: form.given() for form in (inherited if given is None else given)}
    if given is None:
        found = {above: {rate: max(own[rate], rates.get(rate, 0)) for rate in own} for above, own in found.items()}
    return tuple(Tier(above, {**rates, **own}) for above, own in sorted(found.items()))


def marked_up(price: Price, ppm: int) -> Price:
    """The price with every rate times so many millionths, rounded up."""

    def times(rates: dict[str, int]) -> dict[str, int]:
        return {rate: -(-picos * ppm // PPM) for rate, picos in rates.items()}

    def tiers(plain: tuple[Tier, ...]) -> tuple[Tier, ...]:
        return tuple(Tier(tier.above_input_tokens, times(tier.rates)) for tier in plain)

    services = {name: Variant(times(one.rates), tiers(one.tiers)) for name, one in price.services.items()}
    return Price(price.version, times(price.rates), tiers(price.tiers), services)


def show(price: Price) -> dict[str, Any]:
    """A price as a form that means the same, with what is inherited written out."""
    shown: dict[str, Any] = {**_shown_rates(price.rates)}
    if price.tiers:
        shown["tiers"] = _shown_tiers(price.tiers)
    if price.services:
        shown["service_tiers"] = {name: _shown_variant(one, price) for name, one in price.services.items()}
    return shown


def _shown_variant(variant: Variant, price: Price) -> dict[str, Any]:
    shown: dict[str, Any] = {**_shown_rates(variant.rates)}
    if price.tiers or variant.tiers:  # else it would read as having the base's
        shown["tiers"] = _shown_tiers(variant.tiers)
    return shown


def _shown_tiers(tiers: tuple[Tier, ...]) -> list[dict[str, Any]]:
    return [{"above_input_tokens": tier.above_input_tokens, **_shown_rates(tier.rates)} for tier in tiers]


def _shown_rates(rates: dict[str, int]) -> dict[str, str]:
    return dict(_shown_rate(rate, picos) for rate, picos in rates.items())


def _shown_rate(rate: str, picos: int) -> tuple[str, str]:
    """The field that sets this rate, and what to write there."""
    if rate == "second" and picos % HOUR_S:
        return "per_hour_usd", show_picos(picos, scale=PICOS_PER_USD)
    if rate == "second":
        return field_of(rate), show_picos(picos // HOUR_S, scale=PICOS_PER_USD)
    if rate == "web_search":
        return field_of(rate), show_picos(picos, scale=PICOS_PER_USD // _THOUSAND)
    return field_of(rate), show_picos(picos, scale=PICOS_PER_USD if rate == "request" else PICOS_PER_USD_PER_MILLION)
