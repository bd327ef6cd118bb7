"""The kinds of field that bodies are made of, each with its bounds; and how money and times are shown.

Messages of these validators never repeat what was sent.
"""

import ipaddress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from bson.int64 import Int64
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from ledger import money
from ledger.money import MAX_NANOS, AmountError
from ledger.price_tables import HOUR_S

MAX_RATE_PICOS = 10**15
MAX_HOUR_PICOS = 9 * 10**15  # times the largest markup, it is still a whole number of 64 bits
PICOS_PER_USD_PER_MILLION = 10**6
_DIGITS = 28  # what decimal arithmetic keeps; a longer amount would be rounded, and so not seen to be too fine


class Body(BaseModel):
    """A request's body: a field that is not known is refused, because to ignore it would be to promise it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True)


def _usd(value: Any, *, scale: int, most: int) -> int:
    """A decimal string, or a JSON number as it was written, in whole units of 1/`scale` USD."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('must be an amount in USD as a decimal string, such as "12.50"')  # noqa: TRY004
    try:
        amount = Decimal(str(value).strip())
        if len(amount.as_tuple().digits) > _DIGITS:
            raise AmountError
        units = money.parse_usd(str(amount), scale=scale)
    except (AmountError, ArithmeticError):
        decimals = len(str(scale)) - 1
        raise ValueError(f'must be an amount in USD with at most {decimals} decimals, written like "12.50"') from None
    if abs(units) > most:
        raise ValueError("is out of range")
    return units


def _nanos(value: Any) -> int:
    return _usd(value, scale=money.NANOS_PER_USD, most=MAX_NANOS)


def _picos_per_token(value: Any) -> int:
    """USD per million tokens as pico-USD per token."""
    return _usd(value, scale=PICOS_PER_USD_PER_MILLION, most=MAX_RATE_PICOS)


def _picos_each(value: Any) -> int:
    return _usd(value, scale=money.PICOS_PER_USD, most=MAX_RATE_PICOS)


def _picos_of_thousand(value: Any) -> int:
    """USD per thousand as pico-USD each."""
    return _usd(value, scale=money.PICOS_PER_USD // 1_000, most=MAX_RATE_PICOS)


def _picos_per_hour(value: Any) -> int:
    return _usd(value, scale=money.PICOS_PER_USD, most=MAX_HOUR_PICOS)


def _picos_per_hour_of_seconds(value: Any) -> int:
    """USD per second as pico-USD per hour."""
    return _usd(value, scale=money.PICOS_PER_USD, most=MAX_HOUR_PICOS // HOUR_S) * HOUR_S


def _ppm(value: Any) -> int:
    """A factor such as 1.2 in millionths."""
    try:
        return _usd(value, scale=10**6, most=10**9)
    except ValueError:
        raise ValueError('must be a factor up to 1000 with at most 6 decimals, such as "1.2"') from None


_AS_DECIMAL = WithJsonSchema({"type": "string", "examples": ["12.50"]})
Usd = Annotated[int, BeforeValidator(_nanos), _AS_DECIMAL]
CapUsd = Annotated[int, BeforeValidator(_nanos), Field(ge=0), _AS_DECIMAL]
UsdPerMillion = Annotated[int, BeforeValidator(_picos_per_token), Field(ge=0), _AS_DECIMAL]
UsdEach = Annotated[int, BeforeValidator(_picos_each), Field(ge=0), _AS_DECIMAL]
UsdPerThousand = Annotated[int, BeforeValidator(_picos_of_thousand), Field(ge=0), _AS_DECIMAL]
UsdPerHour = Annotated[int, BeforeValidator(_picos_per_hour), Field(ge=0), _AS_DECIMAL]
UsdPerSecond = Annotated[int, BeforeValidator(_picos_per_hour_of_seconds), Field(ge=0), _AS_DECIMAL]
Factor = Annotated[int, BeforeValidator(_ppm), Field(gt=0), _AS_DECIMAL]

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"
ModelName = Annotated[str, Field(pattern=MODEL_NAME)]
Email = Annotated[str, Field(max_length=254, pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$")]
Endpoint = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_./-]{0,63}$")]
Rate = Annotated[int, Field(ge=1, le=10**9)]
Tokens = Annotated[int, Field(ge=1, le=10**9)]


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError("must be a network such as 203.0.113.0/24 or 2001:db8::/32, with no host bits set") from None


def _to_come(at: datetime) -> datetime:
    if at <= datetime.now(UTC):
        raise ValueError("must lie in the future; to end a key now, revoke it")
    return at


Network = Annotated[str, AfterValidator(_network)]
FutureTime = Annotated[AwareDatetime, AfterValidator(_to_come)]


class LimitsBody(Body):
    """Counted limits of an account or an upstream; null is no limit."""

    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    concurrency: Rate | None = None


def limits_change(given: dict[str, int | None]) -> dict[str, dict[str, Any]]:
    """The MongoDB update that sets the limits given and removes those given as null."""
    sets = {f"limits.{name}": Int64(value) for name, value in given.items() if value is not None}
    unsets = {f"limits.{name}": "" for name, value in given.items() if value is None}
    return {"$set": sets, "$unset": unsets}


def money_pair(name: str, nanos: int) -> dict[str, Any]:
    """`{name_nanos: 1500000000, name_usd: "1.50"}`."""
    return {f"{name}_nanos": int(nanos), f"{name}_usd": money.format_usd(int(nanos))}


def show_picos(picos: int, *, scale: int) -> str:
    """Units of 1/`scale` USD as a decimal string, exact."""
    text = format(Decimal(int(picos)) / scale, "f")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def show_time(at: datetime) -> str:
    """A time of MongoDB's (UTC, without a zone) as RFC 3339."""
    return at.replace(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def show_us(at_us: int | None) -> str | None:
    """Unix microseconds as RFC 3339."""
    return None if at_us is None else show_time(datetime.fromtimestamp(at_us / 1_000_000, UTC))
