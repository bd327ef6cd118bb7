"""A price as people write it, and the integer rates that it means.

USD per million tokens become pico-USD per token ("0.0375" is 37,500), exactly or not at all; the markup multiplies each
rate and rounds up to a whole pico-USD, so a markup never loses to rounding. What this version cannot bill is refused by
name: a price that was accepted and ignored would be given away.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from admin_api.fields import PICOS_PER_USD_PER_MILLION, Body, UsdEach, UsdPerMillion, show_picos
from ledger.money import PICOS_PER_USD
from ledger.prices import PPM, RATES

REQUEST = "request"


def field_of(rate: str) -> str:
    """The field that sets a rate of `ledger.prices.RATES`: `input_per_million_usd` of `input`."""
    return "per_request_usd" if rate == REQUEST else f"{rate}_per_million_usd"


def _refuse(value: Any) -> None:
    if value is not None:
        raise ValueError("cannot be billed by this version yet, so it is not accepted")


NotYet = Annotated[None, BeforeValidator(_refuse), WithJsonSchema({"description": "not billed by this version yet"})]


class PriceForm(Body):
    """USD per million tokens unless the name says otherwise; what has no rate of its own costs its parent's dearest."""

    input_per_million_usd: UsdPerMillion
    output_per_million_usd: UsdPerMillion
    cached_input_per_million_usd: UsdPerMillion | None = None
    cache_write_5m_per_million_usd: UsdPerMillion | None = None
    cache_write_1h_per_million_usd: UsdPerMillion | None = None
    cache_write_30m_per_million_usd: UsdPerMillion | None = None
    cache_write_12h_per_million_usd: UsdPerMillion | None = None
    input_audio_per_million_usd: UsdPerMillion | None = None
    output_audio_per_million_usd: UsdPerMillion | None = None
    input_image_per_million_usd: UsdPerMillion | None = None
    output_image_per_million_usd: UsdPerMillion | None = None
    per_request_usd: UsdEach | None = None
    per_second_usd: NotYet = None
    web_search_per_thousand_usd: NotYet = None
    tiers: NotYet = None
    service_tiers: NotYet = None

    def rates(self, *, markup_ppm: int) -> dict[str, int]:
        """Pico-USD by rate name, markup included."""
        given = {rate: getattr(self, field_of(rate)) for rate in RATES}
        return {rate: _times(picos, markup_ppm) for rate, picos in given.items() if picos is not None}


def _times(picos: int, ppm: int) -> int:
    return -(-picos * ppm // PPM)


def show(rates: dict[str, int]) -> dict[str, str]:
    """Rates as the fields that set them."""
    return {field_of(rate): _shown(rate, picos) for rate, picos in rates.items()}


def _shown(rate: str, picos: int) -> str:
    return show_picos(picos, scale=PICOS_PER_USD if rate == REQUEST else PICOS_PER_USD_PER_MILLION)
