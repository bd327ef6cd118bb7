"""Models: a public name, what it costs, and where it is served. Prices are versions of a book that only grows."""

from typing import Annotated, Any

from bson.int64 import Int64
from fastapi import APIRouter, Path, Query, Response
from pydantic import BeforeValidator, Field

from admin_api import force, price_form
from admin_api.fields import MODEL_NAME, Body, Factor, ModelName, Slug, Tokens, show_picos, show_time
from admin_api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from admin_api.price_form import PriceForm
from admin_api.problems import invalid, not_found
from admin_api.stores import Session, Stores, StoresDep, in_transaction
from ledger.cold import Document, now
from ledger.prices import PPM

router = APIRouter(prefix="/v1", tags=["models"])

PathName = Annotated[str, Path(pattern=MODEL_NAME)]


class TargetForm(Body):
    """An upstream, by its name or id, and the model's name there."""

    upstream: Slug
    model: ModelName


def _no_book(value: Any) -> Any:
    if value == "book":
        raise ValueError("the price book is not served by this version yet; give the price itself")
    return value


Price = Annotated[PriceForm, BeforeValidator(_no_book)]


class ModelForm(Body):
    """The whole of a model; PUT replaces it.

    `max_input_tokens` is the most that its input can count, which is what a request whose input cannot be counted
    beforehand (a file, an image by URL) is held for. Set it to the model's context window; 1,000,000 if you do not.
    """

    upstreams: Annotated[list[TargetForm], Field(min_length=1, max_length=50)]
    price: Price
    max_output_tokens: Tokens
    max_input_tokens: Tokens = 1_000_000
    markup: Factor = PPM
    reasons: bool = False


@router.put("/models/{name:path}")
async def put(name: PathName, body: ModelForm, response: Response, stores: StoresDep) -> dict[str, Any]:
    """Set a model; 201 if it is new. The price is in force for every request that is admitted after the answer."""
    entered = body.price.rates(markup_ppm=PPM)
    rates = body.price.rates(markup_ppm=body.markup)

    async def write(session: Session) -> tuple[Document, bool]:
        await stores.cold.config_changed(session)
        targets = await _targets(stores, body.upstreams, session)
        before = await stores.cold.models.find_one({"_id": name}, session=session)
        document: Document = {
            "_id": name,
            "targets": targets,
            "price_version": await _price_version(stores, name, rates, session),
            "rates": _int64(rates),
            "entered": _int64(entered),
            "markup_ppm": Int64(body.markup),
            "max_output_tokens": body.max_output_tokens,
            "max_input_tokens": body.max_input_tokens,
            "reasons": body.reasons,
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
    """Remove a model; its price versions stay, because events pin them."""

    async def remove(session: Session) -> Document:
        await stores.cold.config_changed(session)
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
    """A model; `price` as it was entered, `rates` (pico-USD per token or request) with the markup, as billed."""
    return {
        "name": document["_id"],
        "upstreams": [
            {"upstream": names.get(target["upstream"], target["upstream"]), "model": target["model"]}
            for target in document["targets"]
        ],
        "price": price_form.show(document["entered"]),
        "markup": show_picos(document["markup_ppm"], scale=PPM),
        "price_version": document["price_version"],
        "rates_picos": {rate: int(picos) for rate, picos in document["rates"].items()},
        "max_output_tokens": document["max_output_tokens"],
        "max_input_tokens": document["max_input_tokens"],
        "reasons": document["reasons"],
        "created_at": show_time(document["created_at"]),
    }


def show_price(document: Document) -> dict[str, Any]:
    """A price version, markup included."""
    return {
        "version": document["_id"],
        "model": document["model"],
        "price": price_form.show(document["rates"]),
        "rates_picos": {rate: int(picos) for rate, picos in document["rates"].items()},
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


async def _price_version(stores: Stores, name: str, rates: dict[str, int], session: Session) -> int:
    """The version of these rates: the model's last one if it is the same, else the next of the book."""
    last = await stores.cold.prices.find_one({"model": name}, sort=[("_id", -1)], session=session)
    if last is not None and last["rates"] == rates:
        return int(last["_id"])
    version = await stores.cold.next_number("prices", session)
    document = {"_id": version, "model": name, "rates": _int64(rates), "created_at": now()}
    await stores.cold.prices.insert_one(document, session=session)
    return version


async def _names(stores: Stores) -> dict[str, str]:
    return {d["_id"]: d["name"] async for d in stores.cold.upstreams.find({}, {"name": 1})}


def _int64(rates: dict[str, int]) -> dict[str, Int64]:
    return {rate: Int64(picos) for rate, picos in rates.items()}
