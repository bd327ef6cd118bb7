"""The price book: what providers charge for their models, by exact names, as an operator imported it.

To import changes nothing that is billed: a model costs what its own price version says, until the model is set or the
book is applied to it. The gateway never reads the book.
"""

from datetime import date
from typing import Annotated, Any

from bson.int64 import Int64
from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field

from admin_api import book_changes, book_parts, force, model_prices, price_form
from admin_api.fields import Body, Factor, ModelName, Name, Tokens
from admin_api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from admin_api.price_form import PartialPriceForm
from admin_api.problems import Problem, not_found
from admin_api.stores import Session, Stores, StoresDep, in_transaction
from admin_api.upstreams import Provider
from ledger import price_documents
from ledger.cold import Document
from ledger.price_documents import price_of
from ledger.prices import PPM

router = APIRouter(prefix="/v1/price-book", tags=["price book"])

Label = Annotated[str, Field(pattern=r"^[a-z0-9_+.]{1,100}$")]


class UpcomingForm(Body):
    """A price that is announced: from its first day (UTC). It is shown, and imported again when it is in force."""

    starts: date
    price: PartialPriceForm


class EntryForm(Body):
    """What a provider charges for a model.

    `left_out`: what it charges for and Weir cannot bill, in USD by the source's names. `derived`: fields of the price that
    are not the source's own.
    """

    model: ModelName
    price: PartialPriceForm
    markup: Factor = PPM
    context_window: Tokens | None = None
    left_out: Annotated[dict[Label, Annotated[str, Field(max_length=40)]], Field(max_length=50, default_factory=dict)]
    derived: Annotated[list[Label], Field(max_length=50, default_factory=list)]
    upcoming: Annotated[list[UpcomingForm], Field(max_length=20, default_factory=list)]

    def document(self) -> Document:
        return {
            "model": self.model,
            **price_documents.fields(self.price.price()),
            "markup_ppm": Int64(self.markup),
            "context_window": self.context_window,
            "left_out": self.left_out,
            "derived": self.derived,
            "upcoming": [
                {"starts": one.starts.isoformat(), **price_documents.fields(one.price.price())} for one in self.upcoming
            ],
        }


def _once(entries: list[EntryForm]) -> list[EntryForm]:
    if len({entry.model for entry in entries}) < len(entries):
        raise ValueError("two entries are of the same model")
    return entries


class PartForm(Body):
    """All entries of one provider. `based_on`: the version that they were made from; another one since is a 409."""

    provider: Provider
    source: Name
    entries: Annotated[list[EntryForm], Field(max_length=2_000), AfterValidator(_once)]
    based_on: Annotated[int, Field(ge=0, le=2**53)] | None = None


class ApplyForm(Body):
    """Which models to price again; all that were priced by the book if none is named."""

    models: Annotated[list[ModelName], Field(max_length=1_000)] | None = None
    dry_run: bool = False


@router.get("")
async def get(
    stores: StoresDep,
    provider: Annotated[Provider | None, Query()] = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
    version: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """The entries by provider and model, as they are or, with `version`, as they were when that one was the newest."""
    until: Document = {} if version is None else {"_id": {"$lte": version}}
    newest = await book_parts.parts(stores).find_one(until, {"_id": 1}, sort=[("_id", -1)])
    if version is not None and (newest is None or newest["_id"] != version):
        raise not_found("version of the price book")
    place = after(cursor, str, str)
    found = [
        (part, entry)
        for part in await _parts(stores, until, provider)
        for entry in part["entries"]
        if (model is None or entry["model"] == model) and (place is None or (part["provider"], entry["model"]) > place)
    ]
    found.sort(key=lambda pair: (pair[0]["provider"], pair[1]["model"]))
    shown = [book_parts.show(*pair) for pair in found[: limit + 1]]
    answer = page(shown, limit, lambda entry: entry, lambda entry: (entry["provider"], entry["model"]))
    return {"version": int(newest["_id"]) if newest else 0, **answer}


@router.put("")
async def put(body: PartForm, stores: StoresDep) -> dict[str, Any]:
    """Replace a provider's entries; a new version, unless nothing differs. No model's price changes by this."""

    async def write(session: Session) -> dict[str, Any]:
        part = await book_parts.current(stores, body.provider, session)
        if body.based_on is not None and body.based_on != part["_id"]:
            detail = "the provider's entries were replaced by others since; look at the changes again"
            raise Problem(409, "price_book_changed", detail)
        entries = [entry.document() for entry in body.entries]
        answer = await _changes(stores, part, entries, session)
        version, fresh = await book_parts.put(stores, part, body.source, entries, session)
        return {**answer, "version": version, "written": fresh}

    return await in_transaction(stores.cold, write)


@router.post("/diff")
async def diff(body: PartForm, stores: StoresDep) -> dict[str, Any]:
    """What a PUT of this would change, and nothing else."""
    part = await book_parts.current(stores, body.provider)
    answer = await _changes(stores, part, [entry.document() for entry in body.entries])
    return {**answer, "version": int(part["_id"]), "written": False}


@router.post("/apply")
async def apply(body: ApplyForm, stores: StoresDep) -> dict[str, Any]:
    """Price models that were priced by the book at what it says now; in force for what is admitted after the answer."""

    async def write(session: Session) -> list[dict[str, Any]]:
        where: Document = {"book": {"$exists": True}}
        if body.models is not None:
            where["_id"] = {"$in": body.models}
        models = await stores.cold.models.find(where, session=session).sort("_id", 1).to_list()
        changed = [change for model in models if (change := await _apply(stores, model, session))]
        if any("problem" not in change for change in changed):
            await stores.cold.config_changed(session)
        if body.dry_run:
            raise _DryRun(changed)
        return changed

    try:
        changed = await in_transaction(stores.cold, write)
    except _DryRun as found:
        return {"items": found.changed, "written": False}
    if changed:
        await force.config(stores, "price book")
    return {"items": changed, "written": True}


class _DryRun(Exception):
    """Ends a transaction without writing what it found."""

    def __init__(self, changed: list[dict[str, Any]]) -> None:
        super().__init__()
        self.changed = changed


async def _apply(stores: Stores, model: Document, session: Session) -> dict[str, Any] | None:
    """Price one model again; what changed, None if nothing did, or why it cannot be."""
    try:
        new = await model_prices.again(stores, model, session)
    except Problem as problem:
        return {"model": model["_id"], "problem": problem.detail}
    await stores.cold.models.replace_one({"_id": model["_id"]}, new, session=session)
    rates = book_changes.rates(*(price_form.show(price_of(document)) for document in (model, new)))
    versions = {"old_price_version": model["price_version"], "new_price_version": new["price_version"]}
    return {"model": model["_id"], **versions, "rates": rates} if rates else None


async def _changes(
    stores: Stores, part: Document, entries: list[Document], session: Session | None = None
) -> dict[str, Any]:
    """What these entries would change in a part, and which models were priced by the entries that change."""
    served: dict[str, list[str]] = {}
    async for model in stores.cold.models.find({"book.provider": part["provider"]}, {"book": 1}, session=session):
        served.setdefault(model["book"]["model"], []).append(model["_id"])
    old, new = ([book_parts.said(entry) for entry in some] for some in (part["entries"], entries))
    items = [
        {**change, "served_as": sorted(served.get(change["model"], []))} for change in book_changes.entries(old, new)
    ]
    return {"provider": part["provider"], "items": items}


async def _parts(stores: Stores, until: Document, provider: str | None) -> list[Document]:
    """The newest part of each provider, or of one."""
    where = until if provider is None else {**until, "provider": provider}
    newest: list[dict[str, Any]] = [
        {"$match": where},
        {"$group": {"_id": "$provider", "version": {"$max": "$_id"}}},
    ]
    found = [row["version"] async for row in await book_parts.parts(stores).aggregate(newest)]
    return await book_parts.parts(stores).find({"_id": {"$in": found}}).to_list()
