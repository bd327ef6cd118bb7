"""The price book as it is kept: for each provider, every version of its part; the newest is what counts.

A version is written once and never changed. An entry keeps the list price; its markup is applied where it is used.
"""

from collections.abc import Sequence
from typing import Any

from bson.int64 import Int64

from admin_api import price_form
from admin_api.fields import show_picos, show_time
from admin_api.price_form import marked_up
from admin_api.stores import Session, Stores
from ledger.cold import Collection, Document, now
from ledger.price_documents import price_of
from ledger.price_record import Price
from ledger.prices import PPM


def parts(stores: Stores) -> Collection:
    return stores.cold.db["price_book"]


async def current(stores: Stores, provider: str, session: Session | None = None) -> Document:
    """The newest part of a provider; one of version 0, without entries, if nothing was imported yet."""
    found = await parts(stores).find_one({"provider": provider}, sort=[("_id", -1)], session=session)
    return found or {"_id": 0, "provider": provider, "source": None, "entries": []}


async def entry(
    stores: Stores, provider: str, model: str, session: Session | None = None
) -> tuple[int, Document] | None:
    """The version of the provider's newest part, and its entry of exactly this name."""
    part = await current(stores, provider, session)
    return next(((int(part["_id"]), one) for one in part["entries"] if one["model"] == model), None)


async def put(
    stores: Stores, part: Document, source: str, entries: Sequence[Document], session: Session
) -> tuple[int, bool]:
    """Write the next version after this part; the version, and whether there was anything new to write."""
    if part["_id"] and part["source"] == source and part["entries"] == entries:
        return int(part["_id"]), False
    version = await stores.cold.next_number("price_book", session)
    document = {
        "_id": Int64(version),
        "provider": part["provider"],
        "source": source,
        "entries": entries,
        "created_at": now(),
    }
    await parts(stores).insert_one(document, session=session)
    return version, True


def price(entry: Document) -> Price:
    """What an entry makes a model cost: its list price with its markup."""
    return marked_up(price_of(entry), int(entry["markup_ppm"]))


def show(part: Document, entry: Document) -> dict[str, Any]:
    return {
        "provider": part["provider"],
        "version": int(part["_id"]),
        "source": part["source"],
        "imported_at": show_time(part["created_at"]),
        **said(entry),
    }


def said(entry: Document) -> dict[str, Any]:
    """What an entry says, as a form that sets the same."""
    return {
        "model": entry["model"],
        "price": price_form.show(price_of(entry)),
        "markup": show_picos(entry["markup_ppm"], scale=PPM),
        "context_window": entry["context_window"],
        "left_out": entry["left_out"],
        "derived": entry["derived"],
        "upcoming": [{"starts": one["starts"], "price": price_form.show(price_of(one))} for one in entry["upcoming"]],
    }
