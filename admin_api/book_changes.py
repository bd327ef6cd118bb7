"""What a new price would change, rate by rate, in the names of the fields that set them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Shown = Mapping[str, Any]
"""A price, or an entry of the book, as it is shown."""


def rates(old: Shown | None, new: Shown | None) -> list[dict[str, Any]]:
    """Every field that differs, with both values; None where there is none."""
    before, after = dict(_flat(old or {})), dict(_flat(new or {}))
    fields = sorted({*before, *after}, key=lambda field: (field.count("."), field))
    return [
        {"field": field, "old": before.get(field), "new": after.get(field)}
        for field in fields
        if before.get(field) != after.get(field)
    ]


def entries(old: Iterable[Shown], new: Iterable[Shown]) -> list[dict[str, Any]]:
    """Every model whose entry is new, gone or changed; upcoming prices and notes are no change of a price."""
    before, after = ({entry["model"]: entry for entry in some} for some in (old, new))
    found = []
    for model in sorted({*before, *after}):
        changed = rates(_costs(before.get(model)), _costs(after.get(model)))
        if changed:
            change = "new" if model not in before else "gone" if model not in after else "changed"
            found.append({"model": model, "change": change, "rates": changed})
    return found


def _costs(entry: Shown | None) -> Shown | None:
    return None if entry is None else {**entry["price"], "markup": entry["markup"]}


def _flat(value: Shown, path: str = "") -> Iterator[tuple[str, Any]]:
    """`tiers.200000.input_per_million_usd` and the like: a tier by its threshold, a service tier by its name."""
    for name, inner in value.items():
        if name == "tiers":
            for tier in inner:
                rest = {field: usd for field, usd in tier.items() if field != "above_input_tokens"}
                yield from _flat(rest, f"{path}tiers.{tier['above_input_tokens']}.")
        elif isinstance(inner, Mapping):
            yield from _flat(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner
