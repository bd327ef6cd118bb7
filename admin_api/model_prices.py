"""What a model costs: a price that was written out, or the price book's; and the versions of it, which only grow."""

from typing import Any, NamedTuple

import msgspec

from admin_api import book_parts
from admin_api.price_form import PriceForm, marked_up
from admin_api.problems import invalid
from admin_api.stores import Session, Stores
from ledger import price_documents
from ledger.cold import Document, now
from ledger.price_documents import price_of
from ledger.price_record import Price

_NEEDED = ("input", "output")


class Terms(NamedTuple):
    """A price as entered, and with the model's markup; where it is from if that is the book, and what the book knows."""

    entered: Price
    price: Price
    book: Document | None = None
    context_window: int | None = None

    def fields(self) -> Document:
        """The terms' part of a model's document, but for the version."""
        kept = {**price_documents.fields(self.price), "entered": price_documents.fields(self.entered)}
        return kept if self.book is None else {**kept, "book": self.book}


def written_out(form: PriceForm, markup_ppm: int) -> Terms:
    """The terms of a price that was written out."""
    return Terms(form.price(), form.price(markup_ppm=markup_ppm))


async def by_the_book(stores: Stores, target: Document, markup_ppm: int, session: Session) -> Terms:
    """The terms that the book has for exactly what the upstream calls the model; a 422 if it has none.

    `target`: the model's first.
    """
    upstream = await stores.cold.upstreams.find_one({"_id": target["upstream"]}, session=session)
    assert upstream is not None
    found = await book_parts.entry(stores, upstream["provider"], target["model"], session)
    if found is None:
        raise invalid(
            "price", "the price book has no entry of exactly the name that the first upstream has for the model"
        )
    version, entry = found
    missing = [f"{rate}_per_million_usd" for rate in _NEEDED if rate not in entry["rates"]]
    if missing:
        raise invalid("price", f"the price book has no {' and no '.join(missing)} for this model; write the price out")
    entered = book_parts.price(entry)
    book = {"provider": upstream["provider"], "model": target["model"], "version": version}
    return Terms(entered, marked_up(entered, markup_ppm), book, entry["context_window"])


async def version_of(stores: Stores, name: str, price: Price, session: Session) -> int:
    """The version of this price: the model's last one if it is the same, else the next of all prices."""
    last = await stores.cold.prices.find_one({"model": name}, sort=[("_id", -1)], session=session)
    if last is not None and price_of(last) == price:
        return int(last["_id"])
    version = await stores.cold.next_number("prices", session)
    document = {"_id": version, "model": name, **price_documents.fields(price), "created_at": now()}
    await stores.cold.prices.insert_one(document, session=session)
    return version


async def again(stores: Stores, model: Document, session: Session) -> Document:
    """A model that was priced by the book, at what the book says now; Problem if it does not say any more."""
    terms = await by_the_book(stores, model["targets"][0], int(model["markup_ppm"]), session)
    rest = {name: value for name, value in model.items() if name not in ("rates", "tiers", "services", "entered")}
    return {**rest, **terms.fields(), "price_version": await version_of(stores, model["_id"], terms.price, session)}


def picos(price: Price) -> dict[str, Any]:
    """Every rate as it is billed."""
    whole = msgspec.to_builtins(price)
    return {f"{part}_picos": whole.get(part, empty) for part, empty in (("rates", {}), ("tiers", []), ("services", {}))}
