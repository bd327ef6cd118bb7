"""A price as MongoDB keeps it: `rates`, and where there are any `tiers` and `services`.

A document of before there were tiers has only `rates`, and reads as what it meant.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from bson.int64 import Int64

from ledger.cold import Document
from ledger.price_record import Price

_PARTS = ("rates", "tiers", "services")


def fields(price: Price) -> Document:
    """A price's part of a document; whole numbers as 64 bits, whatever their size."""
    written = msgspec.to_builtins(price)
    return {name: _int64(written[name]) for name in _PARTS if name in written}


def price_of(document: Mapping[str, Any], *, version: int = 0) -> Price:
    """The price that a document keeps."""
    return msgspec.convert({"version": version, **{name: document[name] for name in _PARTS if name in document}}, Price)


def _int64(value: Any) -> Any:
    if isinstance(value, int):
        return Int64(value)
    if isinstance(value, dict):
        return {name: _int64(inner) for name, inner in value.items()}
    return [_int64(inner) for inner in value]
