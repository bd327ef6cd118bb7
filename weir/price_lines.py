"""Prices as people read them: a row for each table of rates, a column for each rate; and changes, a row for each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from weir.tables import Column, Row, table, usd

_UNITS = ("_per_million_usd", "_usd")
_TABLES = ("tiers", "service_tiers")


def price_table(price: Row) -> Iterable[str]:
    """A price: the base, its tiers, and the same for every service tier."""
    rows = list(_tables(price, "usual"))
    fields = list(dict.fromkeys(field for row in rows for field in row if field != "served"))
    columns: list[Column] = [("USD per million", lambda row: row["served"])]
    columns += [(short(field), _amount_of(field)) for field in fields]
    return table(rows, columns, none="")


def _amount_of(field: str) -> Callable[[Row], str]:
    return lambda row: usd(row.get(field))


def _tables(price: Row, name: str) -> Iterator[Row]:
    yield {"served": name, **{field: amount for field, amount in price.items() if field not in _TABLES}}
    for tier in price.get("tiers", ()):
        rates = {field: amount for field, amount in tier.items() if field != "above_input_tokens"}
        yield {"served": f"{name}, above {tier['above_input_tokens']:,} tokens of input", **rates}
    for service, inner in price.get("service_tiers", {}).items():
        yield from _tables(inner, service)


def short(field: str) -> str:
    """A field's name without the unit that goes without saying."""
    unit = next((unit for unit in _UNITS if field.endswith(unit)), "")
    return field.removesuffix(unit).replace("_", " ")


def change_rows(items: Sequence[Row]) -> Iterator[Row]:
    """Changes of the API, a row for each rate; of a model that is new or gone only the usual rates."""
    for item in items:
        told = item.get("change", "changed")
        rates = item["rates"] if told == "changed" else [rate for rate in item["rates"] if "." not in rate["field"]]
        for rate in rates:
            yield {**item, "change": told, **rate}


CHANGES: list[Column] = [
    ("provider", lambda row: row["provider"]),
    ("model", lambda row: row["model"]),
    ("change", lambda row: row["change"]),
    ("rate", lambda row: short(row["field"])),
    ("old", lambda row: _amount(row["field"], row["old"])),
    ("new", lambda row: _amount(row["field"], row["new"])),
    ("served as", lambda row: row["served_as"]),
]
APPLIED: list[Column] = [
    ("model", lambda row: row["model"]),
    ("rate", lambda row: short(row["field"])),
    ("old", lambda row: _amount(row["field"], row["old"])),
    ("new", lambda row: _amount(row["field"], row["new"])),
]


def _amount(field: str, value: Any) -> str:
    return usd(value) if field.endswith("_usd") else "-" if value is None else str(value)
