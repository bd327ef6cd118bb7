"""Money as people type it, pages, claims and tables: the pure parts of the admin API."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, TypeAdapter, ValidationError

from admin_api.fields import Body, CapUsd, Factor, Usd, UsdPerMillion, money_pair, show_picos
from admin_api.idempotency import claim
from admin_api.paging import after, page
from admin_api.problems import Problem
from ledger.money import MAX_NANOS
from weir.tables import lines, table, usd

USD = TypeAdapter[int](Usd)
PER_MILLION = TypeAdapter[int](UsdPerMillion)


@pytest.mark.parametrize(
    ("typed", "nanos"),
    [
        ("12.50", 12_500_000_000),
        (12.5, 12_500_000_000),
        (0.1, 10**8),
        (3, 3 * 10**9),
        (" 1 ", 10**9),
        (1e-9, 1),
        ("-2", -2 * 10**9),
    ],
)
def test_usd_is_read_as_it_was_written(typed: Any, nanos: int) -> None:
    assert USD.validate_python(typed) == nanos


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "1,5",
        "$1",
        "NaN",
        "Infinity",
        "1e999999999",
        float("nan"),
        True,
        None,
        [],
        "0.0000000001",
        "1." + "0" * 30 + "1",
    ],
)
def test_what_is_no_amount_is_refused_without_an_echo(typed: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        USD.validate_python(typed)
    (error,) = refused.value.errors(include_input=False)
    if isinstance(typed, str) and len(typed) > 2:
        assert typed not in str(error["msg"])


def test_bounds() -> None:
    assert USD.validate_python("9007199.254740991") == MAX_NANOS
    for adapter, text in (
        (USD, "9007199.254740992"),
        (TypeAdapter[int](CapUsd), "-0.01"),
        (TypeAdapter[int](Factor), "0"),
        (TypeAdapter[int](Factor), "1001"),
        (PER_MILLION, "-1"),
        (PER_MILLION, "0.0000001"),
        (PER_MILLION, "1000000001"),
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python(text)


@given(st.integers(0, 10**15))
def test_a_rate_is_shown_as_it_is_entered(picos: int) -> None:
    assert PER_MILLION.validate_python(show_picos(picos, scale=10**6)) == picos


@given(st.integers(-MAX_NANOS, MAX_NANOS))
def test_an_amount_is_shown_as_it_is_entered(nanos: int) -> None:
    assert USD.validate_python(money_pair("x", nanos)["x_usd"]) == nanos


class _Secret(Body):
    amount: Usd
    credential: SecretStr


def test_a_claim_is_over_the_meaning_of_the_body() -> None:
    one, same, other = (
        claim("s", "k", _Secret.model_validate(body))
        for body in (
            {"amount": "1.50", "credential": "a"},
            {"amount": 1.5, "credential": "a"},
            {"amount": "1.5", "credential": "b"},
        )
    )
    assert one == same
    assert one is not None
    assert other is not None
    assert one.digest != other.digest
    assert claim("s", None, _Secret.model_validate({"amount": 1, "credential": "a"})) is None


def test_a_cursor_goes_on_where_the_page_ended() -> None:
    found = [{"_id": n} for n in range(4)]
    first = page(found, 3, lambda d: d["_id"], lambda d: (d["_id"],))
    assert first["items"] == [0, 1, 2]
    assert after(first["next_cursor"], int) == (2,)
    assert page(found, 4, lambda d: d["_id"], lambda d: (d["_id"],))["next_cursor"] is None
    assert after(None, int) is None
    for wrong in ("", "x", "WyJhIl0=", "WzEsMl0="):
        with pytest.raises(Problem):
            after(wrong, int)


def test_tables_line_up() -> None:
    rows = [{"a": "x", "b": "10.00"}, {"a": "longer", "b": "-2.50"}]
    assert list(table(rows, [("name", lambda r: r["a"]), ("left", lambda r: usd(r["b"]))], none="")) == [
        "name      left",
        "x       $10.00",
        "longer  -$2.50",
    ]
    assert list(table([], [("name", lambda r: r["a"])], none="nothing yet")) == ["nothing yet"]
    assert list(lines([("id", "a"), ("models", ["x", "y"]), ("email", None)])) == [
        "id      a",
        "models  x, y",
        "email   -",
    ]
