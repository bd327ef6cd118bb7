"""genai-prices as entries of the price book: what a model costs now, under each name that is exactly its own.

That library resolves names by their beginnings, bills an unknown tier as the usual one and a kind of token without a price
as its parent (wire.md 7). So nothing is asked of it by name here: its tables are read, model by model, and what Weir
cannot bill is listed as left out.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, NamedTuple

import genai_prices
from genai_prices import data, types
from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TieredPrices

from ledger.prices import BASE
from weir.price_gaps import WRITE_12H, Amount, Amounts, with_longer_writes, with_regions

VERSION = f"genai-prices {genai_prices.__version__}"
PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "gemini": "google", "xai": "x-ai"}
"""Weir's providers, and what genai-prices calls them."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._:/@+-]{0,127}")
_FIELDS = {
    "input_mtok": "input_per_million_usd",
    "output_mtok": "output_per_million_usd",
    "cache_read_mtok": "cached_input_per_million_usd",
    "cache_write_mtok": "cache_write_5m_per_million_usd",
    "cache_write_5m_mtok": "cache_write_5m_per_million_usd",
    "cache_write_1h_mtok": "cache_write_1h_per_million_usd",
    WRITE_12H: "cache_write_12h_per_million_usd",
    "input_audio_mtok": "input_audio_per_million_usd",
    "output_audio_mtok": "output_audio_per_million_usd",
    "input_image_mtok": "input_image_per_million_usd",
    "output_image_mtok": "output_image_per_million_usd",
    "web_searches_kcount": "web_search_per_thousand_usd",
    "audio_hours": "per_hour_usd",
    "input_audio_hours": "per_hour_usd",
}
_OPENAI_WRITES = ("cache_write_per_million_usd", "cache_write_30m_per_million_usd")
_USUAL = frozenset().union(*BASE.values())


class Unusable(Exception):
    """A model that the book cannot have; the message says why."""


class Found(NamedTuple):
    """What the source has of a provider: entries as the admin API takes them, and why the others are none."""

    entries: list[dict[str, Any]]
    unusable: dict[str, str]


def entries(provider: str, at: datetime) -> Found:
    """Every model of a provider (of `PROVIDERS`) under each of its exact names, at the prices of that moment."""
    (source,) = (each for each in data.providers if each.id == PROVIDERS[provider])
    found: dict[str, dict[str, Any]] = {}
    unusable: dict[str, str] = {}
    for model in source.models:
        names = [name for name in exact_names(model) if name not in found]
        try:
            entry = _entry(provider, model, at)
        except Unusable as error:
            unusable |= dict.fromkeys(names, str(error))
            continue
        found |= {name: {"model": name, **entry} for name in names}
    return Found([found[name] for name in sorted(found)], unusable)


def exact_names(model: ModelInfo) -> list[str]:
    """The model's own name and those it is matched by letter for letter: none that only begins or ends like one."""
    own = [model.id] if model.is_match(model.id) else []
    return sorted({name for name in (*own, *_equals(model.match)) if _NAME.fullmatch(name)})


def _equals(clause: Any) -> Iterator[str]:
    if isinstance(clause, types.ClauseEquals):
        yield clause.equals
    elif isinstance(clause, types.ClauseOr):
        for one in clause.or_:
            yield from _equals(one)


def _entry(provider: str, model: ModelInfo, at: datetime) -> dict[str, Any]:
    now = _Table(provider, model, at)
    return {
        "price": now.form(),
        "context_window": model.context_window,
        "left_out": now.left_out(),
        "derived": now.derived(),
        "upcoming": list(_upcoming(provider, model, at, now.form())),
    }


def _upcoming(provider: str, model: ModelInfo, at: datetime, form: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The prices that are announced already, each with its first day (UTC)."""
    for day in sorted({day for day in _days(model) if day > at.astimezone(UTC).date()}):
        later = _Table(provider, model, datetime.combine(day, time(), UTC)).form()
        if later != form:
            yield {"starts": day.isoformat(), "price": later}
        form = later


def _days(model: ModelInfo) -> Iterator[date]:
    """The days on which a price or a variant of the model begins."""
    dated = [*(model.price_variants or ()), *(model.prices if isinstance(model.prices, list) else ())]
    for constraint in (each.constraint for each in dated):
        if isinstance(constraint, StartDateConstraint):
            yield constraint.start_date
        elif constraint is not None:
            raise Unusable("its price depends on the time of day")


class _Table:
    """All that a model costs at one moment: the base, and each variant by its name."""

    def __init__(self, provider: str, model: ModelInfo, at: datetime) -> None:
        list(_days(model))  # says what it cannot have
        self._provider = provider
        self._plain = _amounts(model.get_prices(at))
        self._variants = {name: _amounts(price) for name, price in _variants(model, at)}

    def form(self) -> dict[str, Any]:
        """The price as `PUT /models` takes it, but for input and output, which may be missing."""
        base = with_longer_writes(self._provider, self._plain)
        variants = {name: with_longer_writes(self._provider, amounts) for name, amounts in self._variants.items()}
        every = with_regions(self._provider, variants, base)
        shown = _rates(self._provider, base)
        if every:
            # Written out in full: a variant without `tiers` would have the base's.
            services = {
                name: {"tiers": [], **_rates(self._provider, amounts)} for name, amounts in sorted(every.items())
            }
            shown["service_tiers"] = services
        return shown

    def left_out(self) -> dict[str, str]:
        """What costs something and is not in the form, by the source's name; in USD, at base."""
        return {key: _written(_at(price, 0)) for key, price in sorted(self._plain.items()) if key not in _FIELDS}

    def derived(self) -> list[str]:
        """What is in the form and not in the source, as fields of the form."""
        longer = [_FIELDS[WRITE_12H]] if WRITE_12H in with_longer_writes(self._provider, self._plain) else []
        regions = with_regions(self._provider, self._variants, self._plain).keys() - self._variants.keys()
        return [*longer, *(f"service_tiers.{name}" for name in sorted(regions))]


def _variants(model: ModelInfo, at: datetime) -> Iterator[tuple[str, ModelPrice]]:
    """Name and price of every variant that is in force; the usual way to be served is the base."""
    for context in {tuple(sorted(each.when.items())): each.when for each in model.price_variants or ()}.values():
        active = [v for v in model.price_variants or () if v.when == context and _active(v.constraint, at)]
        price = model.get_prices(at, context)
        names = sorted(set(context.values()) - _USUAL)
        if not names and price != model.get_prices(at):
            raise Unusable("its usual service tier has another price than none")
        if names and active:
            yield "+".join(names), price


def _active(constraint: Any, at: datetime) -> bool:
    return constraint is None or bool(constraint.active(at))


def _amounts(price: ModelPrice) -> dict[str, Amount]:
    found = {key: value for key, value in price.__dict__.items() if value is not None}
    for key, value in found.items():
        tiers = value.tiers if isinstance(value, TieredPrices) else []
        if any(amount % _finest(key) for amount in (_at(value, 0), *(tier.price for tier in tiers))):
            raise Unusable(f"its {key} is finer than a pico-USD")
    return found


def _finest(key: str) -> Decimal:
    """A pico-USD in the source's unit."""
    return Decimal("1e-6") if key.endswith("_mtok") else Decimal("1e-9")


def _rates(provider: str, amounts: Amounts) -> dict[str, Any]:
    """The fields of one table, with its tiers if it has any."""
    shown: dict[str, Any] = dict(_fields(provider, amounts, 0))
    tiered = {key: price for key, price in amounts.items() if isinstance(price, TieredPrices) and key in _FIELDS}
    starts = sorted({tier.start for price in tiered.values() for tier in price.tiers})
    if starts:
        shown["tiers"] = [{"above_input_tokens": above, **_fields(provider, tiered, above + 1)} for above in starts]
    return shown


def _fields(provider: str, amounts: Amounts, input_tokens: int) -> dict[str, str]:
    """The fields of one table, as they are for so many input tokens."""
    found: dict[str, Decimal] = {}
    for key, price in amounts.items():
        for field in _fields_of(provider, key):
            found[field] = max(found.get(field, Decimal(0)), _at(price, input_tokens))
    return {field: _written(amount) for field, amount in found.items()}


def _fields_of(provider: str, key: str) -> Iterable[str]:
    """Where an amount goes. OpenAI's cache write has no length of time in the source: it is the one of 30 minutes."""
    if provider == "openai" and key == "cache_write_mtok":
        return _OPENAI_WRITES
    return (_FIELDS[key],) if key in _FIELDS else ()


def _at(price: Amount, input_tokens: int) -> Decimal:
    """The amount for a request with so many input tokens."""
    if not isinstance(price, TieredPrices):
        return price
    reached = [tier.price for tier in price.tiers if input_tokens > tier.start]
    return reached[-1] if reached else price.base


def _written(amount: Decimal) -> str:
    return format(amount.normalize(), "f")
