"""Money: what is typed is what is booked, and the one rounding."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.money import MAX_NANOS, NANOS_PER_USD, PICOS_PER_USD, AmountError, format_usd, parse_usd, round_up_to_nanos

PICOS = st.integers(0, 10**22)
UNITS = st.sampled_from([1, 7, 60, 1000, 3600, 1_000_000, 3_600_000_000])


@given(st.integers(-MAX_NANOS, MAX_NANOS))
def test_format_and_parse_are_each_others_inverse(nanos: int) -> None:
    text = format_usd(nanos)
    assert parse_usd(text) == nanos
    assert Decimal(text) * NANOS_PER_USD == nanos
    assert len(text.partition(".")[2]) >= 2
    assert not text.partition(".")[2][2:].endswith("0")


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("12.50", 12_500_000_000), ("0", 0), ("-0", 0), ("0.000000001", 1), ("1e-9", 1), ("1E3", 10**12), (" 5 ", 5 * 10**9),
        ("9007199.254740991", MAX_NANOS), ("+1", 10**9), ("-1.5", -1_500_000_000), ("1." + "0" * 60, 10**9),
        ("0." + "0" * 60, 0), ("00000000000000000000000000000001", 10**9),
    ],
)  # fmt: skip
def test_parse(text: str, nanos: int) -> None:
    assert parse_usd(text) == nanos


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "x", "1,5", "$5", "nan", "NaN", "sNaN", "inf", "-Infinity", "1e400", "1e999999999", "9007199254740992",
        "0.0000000001", "1e-10", "1.0000000001", "1e-400", "1e-9999999", "1e-999999999",
        "1." + "0" * 27 + "1", "1." + "0" * 40 + "1", "123456789012345." + "0" * 30 + "5", "0x10",
    ],
)  # fmt: skip
def test_refused_and_never_rounded(text: str) -> None:
    with pytest.raises(AmountError):
        parse_usd(text)


@given(st.integers(0, 10**15), st.integers(1, 40))
def test_finer_than_the_scale_is_refused_whatever_the_digits(whole: int, zeros: int) -> None:
    text = f"{whole}.{'0' * zeros}{'1':0>9}"
    if len(text.partition(".")[2]) > 9:
        with pytest.raises(AmountError, match="finer"):
            parse_usd(text)


def test_prices_have_their_own_scale() -> None:
    assert parse_usd("0.0375", scale=PICOS_PER_USD) == 37_500_000_000
    assert parse_usd("0.000000000001", scale=PICOS_PER_USD) == 1
    with pytest.raises(AmountError, match="finer"):
        parse_usd("0.0000000000001", scale=PICOS_PER_USD)


@given(PICOS, UNITS)
def test_rounding_up_is_never_below_the_exact_amount_and_less_than_one_above(picos: int, per: int) -> None:
    exact = Fraction(picos, per * 1000)
    assert round_up_to_nanos(picos, per) == math.ceil(exact)
    assert exact <= round_up_to_nanos(picos, per) < exact + 1


@given(PICOS, PICOS, UNITS)
def test_rounding_once_is_never_dearer_than_rounding_twice(one: int, two: int, per: int) -> None:
    assert round_up_to_nanos(one + two, per) <= round_up_to_nanos(one, per) + round_up_to_nanos(two, per)
