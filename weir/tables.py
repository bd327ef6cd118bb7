"""What the verbs print for people: aligned columns, or a name and a value a line."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], Any]]


def usd(text: Any) -> str:
    """A decimal string of the API as dollars."""
    if text is None:
        return "-"
    return f"-${text[1:]}" if str(text).startswith("-") else f"${text}"


def words(value: Any) -> str:
    """A value as it reads in a table; nothing is a dash, a list is joined."""
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def table(rows: Sequence[Row], columns: Sequence[Column], *, none: str) -> Iterable[str]:
    """Lines of aligned columns under their titles; amounts and numbers to the right. `none` where there is no row."""
    if not rows:
        yield none
        return
    cells = [[title for title, _ in columns]] + [[words(value(row)) for _, value in columns] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    to_right = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(columns))]
    for row in cells:
        aligned = zip(row, widths, to_right, strict=True)
        yield "  ".join(f"{c:>{w}}" if right else f"{c:<{w}}" for c, w, right in aligned).rstrip()


def lines(pairs: Sequence[tuple[str, Any]]) -> Iterable[str]:
    """`name  value` a line, aligned."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        yield f"{name:<{width}}  {words(value)}"


def _is_number(text: str) -> bool:
    return text == "-" or text.lstrip("-$").replace(".", "", 1).isdecimal()
