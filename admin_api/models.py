"""Models: a public name, what it costs, and where it is served. Prices are versions of a book that only grows."""

from typing import Annotated, Any, Literal

from bson.int64 import Int64
from fastapi import APIRouter, Path, Query, Response
from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator

from admin_api import force, model_fallbacks, model_prices, price_form
from admin_api.fields import MODEL_NAME, Body, Factor, ModelName, Slug, Tokens, show_picos, show_time
from admin_api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from admin_api.price_form import PriceForm
from admin_api.problems import invalid, not_found
from admin_api.stores import Session, Stores, StoresDep, in_transaction
from ledger.cold import Document, now
from ledger.price_documents import price_of
from ledger.prices import PPM

router = APIRouter(prefix="/v1", tags=["models"])

_CONTEXT_WINDOW = 1_000_000
QueueSize = Annotated[int, Field(ge=0, le=100_000)]
# SDKs wait 600 s for an answer.
QueueTimeout = Annotated[float, Field(gt=0, le=600)]
PathName = Annotated[str, Path(pattern=MODEL_NAME)]


class TargetForm(Body):
    """An upstream, by its name or id, and the model's name there."""

    upstream: Slug
    model: ModelName


BOOK = PriceForm.model_construct()
"""Stands for the price that the book has."""


def _or_book(value: Any, read: ValidatorFunctionWrapHandler) -> PriceForm:
    if value == "book":
        return BOOK
    form: PriceForm = read(value)
    return form


PriceField = Annotated[PriceForm, WrapValidator(_or_book, json_schema_input_type=PriceForm | Literal["book"])]


class ModelForm(Body):
    """The whole of a model; PUT replaces it.

    `max_input_tokens` is the most that its input can count, which is what a request whose input cannot be counted
    beforehand (a file, an image by URL) is held for. Set it to the model's context window; if you do not, it is the price
    book's where the price is, else 1,000,000.

    `allow_stored` serves requests that refer to what is stored with the provider (`previous_response_id`, files, cached
    contents). One credential serves every caller, so one who knows an id can read what another stored: set it only where
    all callers of the model may read each other.

    `fallbacks`: other models that serve in its place, in this order, while none of its upstreams can, each at its own price.
    A request is held for at the dearest of them.

    `queue_size` requests may wait, each for at most `queue_timeout_s`, while every upstream of the model is at its limit; 0
    (the default) refuses them at once.

    `price` may be "book": what the price book has now under the first upstream's provider and exact name of the model.
    """

    upstreams: Annotated[list[TargetForm], Field(min_length=1, max_length=50)]
    price: PriceField
    max_output_tokens: Tokens
    max_input_tokens: Tokens | None = None
    markup: Factor = PPM
    reasons: bool = False
    allow_stored: bool = False
    fallbacks: Annotated[list[ModelName], Field(max_length=10)] = Field(default=[])
    queue_size: QueueSize = 0
    queue_timeout_s: QueueTimeout = 10.0


@router.put("/models/{name:path}")
async def put(name: PathName, body: ModelForm, response: Response, stores: StoresDep) -> dict[str, Any]:
    """Set a model; 201 if it is new. The price is in force for every request that is admitted after the answer."""

    async def write(session: Session) -> tuple[Document, bool]:
        await stores.cold.config_changed(session)
        targets = await _targets(stores, body.upstreams, session)
        await model_fallbacks.check(stores, name, body.fallbacks, targets, session)
        before = await stores.cold.models.find_one({"_id": name}, session=session)
        if body.price is BOOK:
            terms = await model_prices.by_the_book(stores, targets[0], body.markup, session)
        else:
            terms = model_prices.written_out(body.price, body.markup)
        document: Document = {
            "_id": name,
            "targets": targets,
            "price_version": await model_prices.version_of(stores, name, terms.price, session),
            **terms.fields(),
            "markup_ppm": Int64(body.markup),
            "max_output_tokens": body.max_output_tokens,
            "max_input_tokens": body.max_input_tokens or terms.context_window or _CONTEXT_WINDOW,
            "reasons": body.reasons,
            "allow_stored": body.allow_stored,
            "fallbacks": body.fallbacks,
            "queue_size": body.queue_size,
            "queue_timeout_s": body.queue_timeout_s,
            "created_at": before["created_at"] if before else now(),
        }
        await stores.cold.models.replace_one({"_id": name}, document, upsert=True, session=session)
        return document, before is None

    document, fresh = await in_transaction(stores.cold, write)
    await force.config(stores, name)
    response.status_code = 201 if fresh else 200
    return show(document, await _names(stores))


@router.get("/models")
async def list_all(stores: StoresDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> dict[str, Any]:
    place = after(cursor, str)
    where = {"_id": {"$gt": place[0]}} if place else {}
    found = await stores.cold.models.find(where).sort("_id", 1).limit(limit + 1).to_list()
    names = await _names(stores)
    return page(found, limit, lambda d: show(d, names), lambda d: (d["_id"],))


@router.get("/models/{name:path}")
async def get(name: str, stores: StoresDep) -> dict[str, Any]:
    document = await stores.cold.models.find_one({"_id": name})
    if document is None:
        raise not_found("model")
    return show(document, await _names(stores))


@router.delete("/models/{name:path}")
async def delete(name: str, stores: StoresDep) -> dict[str, Any]:
    """Remove a model; its price versions stay, because events pin them. 409 while it stands in for another one."""

    async def remove(session: Session) -> Document:
        await stores.cold.config_changed(session)
        await model_fallbacks.refuse_if_needed(stores, name, session)
        found = await stores.cold.models.find_one_and_delete({"_id": name}, session=session)
        if found is None:
            raise not_found("model")
        return found

    document = await in_transaction(stores.cold, remove)
    await force.config(stores, name)
    return show(document, await _names(stores))


@router.get("/prices")
async def prices(
    stores: StoresDep,
    version: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Every version of every model's price, the newest first; with `version`, that one."""
    place = after(cursor, int)
    where: dict[str, Any] = {"_id": {"$lt": place[0]}} if place else {}
    if version is not None:
        where = {"_id": version}
    found = await stores.cold.prices.find(where).sort("_id", -1).limit(limit + 1).to_list()
    if version is not None and not found:
        raise not_found("price version")
    return page(found, limit, show_price, lambda d: (d["_id"],))


def show(document: Document, names: dict[str, str]) -> dict[str, Any]:
    """A model; `price` as it was entered, `..._picos` (pico-USD, by `price_tables.RATES`) with the markup, as billed."""
    entered = document["entered"]
    return {
        "name": document["_id"],
        "upstreams": [
            {"upstream": names.get(target["upstream"], target["upstream"]), "model": target["model"]}
            for target in document["targets"]
        ],
        # Before there were tiers, what was entered was its rates.
        "price": price_form.show(price_of(entered if "rates" in entered else {"rates": entered})),
        "markup": show_picos(document["markup_ppm"], scale=PPM),
        "price_version": document["price_version"],
        **model_prices.picos(price_of(document)),
        "price_book": document.get("book"),
        "max_output_tokens": document["max_output_tokens"],
        "max_input_tokens": document["max_input_tokens"],
        "reasons": document["reasons"],
        "allow_stored": document.get("allow_stored", False),
        "fallbacks": document.get("fallbacks", []),
        "queue_size": document.get("queue_size", 0),
        "queue_timeout_s": document.get("queue_timeout_s", 0.0),
        "created_at": show_time(document["created_at"]),
    }


def show_price(document: Document) -> dict[str, Any]:
    """A price version, markup included."""
    price = price_of(document)
    return {
        "version": document["_id"],
        "model": document["model"],
        "price": price_form.show(price),
        **model_prices.picos(price),
        "created_at": show_time(document["created_at"]),
    }


async def _targets(stores: Stores, wanted: list[TargetForm], session: Session) -> list[Document]:
    """Targets by upstream id; 422 names the one that is not there."""
    targets = []
    for index, target in enumerate(wanted):
        either = [{"name": target.upstream}, {"_id": target.upstream}]
        found = await stores.cold.upstreams.find_one({"$or": either}, {"_id": 1}, session=session)
        if found is None:
            raise invalid(f"upstreams.{index}.upstream", "there is no upstream of this name")
        targets.append({"upstream": found["_id"], "model": target.model})
    return targets


async def _names(stores: Stores) -> dict[str, str]:
    return {d["_id"]: d["name"] async for d in stores.cold.upstreams.find({}, {"name": 1})}
