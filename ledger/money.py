"""Money is whole nano-USD; prices are whole pico-USD per so many units; one function rounds, once.

A balance, hold or charge is an `int` of nano-USD whose name ends in `_nanos`. Every value that a Lua script compares is
at most `MAX_NANOS`: Lua numbers are doubles, exact up to 2^53 - 1 ($9,007,199.25).
"""

from decimal import Decimal, InvalidOperation
from typing import Final, NewType

Nanos = NewType("Nanos", int)

NANOS_PER_USD: Final = 10**9
PICOS_PER_NANO: Final = 1_000
PICOS_PER_USD: Final = 10**12
MAX_NANOS: Final = 2**53 - 1


class AmountError(ValueError):
    """An amount that a person typed cannot be used; the message says why."""


def parse_usd(text: str, *, scale: int = NANOS_PER_USD) -> int:
    """Whole units of 1/`scale` USD from a decimal string such as "12.50"; exact, or AmountError.

    Nothing is rounded: an amount finer than the scale is refused, so what was typed is what is booked.
    """
    try:
        value = Decimal(text.strip())
    except (InvalidOperation, AttributeError):
        raise AmountError(f"{text!r} is not an amount in USD; write it like 12.50") from None
    if not value.is_finite():
        raise AmountError(f"{text!r} is not a finite amount")
    if not value:
        return 0
    if value.adjusted() > 15 or value.copy_abs() > MAX_NANOS:
        raise AmountError(f"{text!r} is out of range")
    if value.adjusted() < -12:  # before the ratio: of 1e-999999999 it would have a billion digits
        raise AmountError(f"{text!r} is finer than 1/{scale} USD")
    numerator, denominator = value.as_integer_ratio()  # a Decimal product would round at 28 digits
    whole, rest = divmod(numerator * scale, denominator)
    if rest:
        raise AmountError(f"{text!r} is finer than 1/{scale} USD")
    return whole


def format_usd(nanos: int) -> str:
    """Nano-USD as a decimal string: at least two decimals, no more than it takes to be exact."""
    sign = "-" if nanos < 0 else ""
    whole, part = divmod(abs(nanos), NANOS_PER_USD)
    decimals = f"{part:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def round_up_to_nanos(picos: int, per: int = 1) -> Nanos:
    """The one rounding: `picos` / `per` pico-USD, rounded up to a nano-USD.

    Rounding up once per request costs a caller less than one nano-USD, and a hold made by the same function is never
    below the charge (design.md section 6).
    """
    # Not called `Nanos`: that call costs more than all of this.
    return -(-picos // (per * PICOS_PER_NANO))  # type: ignore[return-value]
