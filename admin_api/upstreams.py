"""Upstreams: one provider endpoint with one credential, which is sealed on arrival and never shown again."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import Field, SecretStr
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from admin_api import addresses, dry_run, force, price_form
from admin_api.fields import Body, LimitsBody, Slug, limits_change, show_time
from admin_api.idempotency import Key, claim, once
from admin_api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from admin_api.problems import Problem, invalid, not_found
from admin_api.stores import Session, Stores, StoresDep, in_transaction
from ledger import catalogue, keys
from ledger.cold import Document, now
from ledger.price_documents import price_of

_PLAIN = ("weight", "priority", "on_client_left", "region", "first_byte_timeout_s")
router = APIRouter(prefix="/v1/upstreams", tags=["upstreams"])

Provider = Literal["openai", "anthropic", "gemini", "xai", "openai_compatible"]
Weight = Annotated[int, Field(ge=0, le=1_000_000)]
Priority = Annotated[int, Field(ge=0, le=1_000)]
Region = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9-]*$")]
# A reasoning model can think for minutes before its first byte, so nothing is cut below the transport's 600 s by itself.
FirstByte = Annotated[float, Field(gt=0, le=600)]
Credential = Annotated[SecretStr, Field(min_length=1, max_length=8_192)]


class NewUpstream(Body):
    """An endpoint to send requests to. Lower `priority` first; `weight` shares requests within one priority, 0 sends none.

    `first_byte_timeout_s`: how long it may take to begin an answer before another upstream is asked; 600 if not given.
    `limits`: the most that all gateways together send there; each worker keeps to its share.
    """

    name: Slug
    provider: Provider
    base_url: str
    credential: Credential
    weight: Weight = 1
    priority: Priority = 0
    limits: LimitsBody | None = None
    on_client_left: Literal["drain", "abort"] = "drain"
    region: Region = ""
    first_byte_timeout_s: FirstByte | None = None


class UpstreamChange(Body):
    """What to change; what is not given stays; a limit that is null is removed. An upstream cannot change its provider."""

    name: Slug | None = None
    base_url: str | None = None
    credential: Credential | None = None
    weight: Weight | None = None
    priority: Priority | None = None
    limits: LimitsBody | None = None
    on_client_left: Literal["drain", "abort"] | None = None
    region: Region | None = None
    first_byte_timeout_s: FirstByte | None = None


@router.post("", status_code=201)
async def create(body: NewUpstream, response: Response, stores: StoresDep, key: Key = None) -> dict[str, Any]:
    upstream_id = f"up_{keys.new_id()}"
    document: Document = {
        "_id": upstream_id,
        **body.model_dump(include={"name", "provider", *_PLAIN}),
        "base_url": _address(stores, body.base_url),
        "credential": _sealed(stores, upstream_id, body.credential),
        "limits": body.limits.model_dump(exclude_none=True) if body.limits else {},
        "created_at": now(),
    }

    async def insert(session: Session) -> None:
        await stores.cold.config_changed(session)
        await stores.cold.upstreams.insert_one(document, session=session)

    try:
        made_id, fresh = await once(stores.cold, claim("upstreams", key, body), upstream_id, insert)
    except DuplicateKeyError:
        raise _name_taken() from None
    await force.config(stores, made_id)
    response.status_code = 201 if fresh else 200
    return show(await _find(stores, made_id))


@router.get("")
async def list_all(stores: StoresDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> dict[str, Any]:
    place = after(cursor, str)
    where = {"_id": {"$gt": place[0]}} if place else {}
    found = await stores.cold.upstreams.find(where).sort("_id", 1).limit(limit + 1).to_list()
    return page(found, limit, show, lambda d: (d["_id"],))


@router.get("/{upstream}")
async def get(upstream: str, stores: StoresDep) -> dict[str, Any]:
    return show(await _find(stores, upstream))


@router.patch("/{upstream}")
async def change(upstream: str, body: UpstreamChange, stores: StoresDep) -> dict[str, Any]:
    given = body.model_dump(exclude_unset=True, exclude={"limits", "credential"})
    for field, value in given.items():
        if value is None and field != "first_byte_timeout_s":
            raise invalid(field, "cannot be null")
    if body.base_url is not None:
        given["base_url"] = _address(stores, body.base_url)
    if body.credential is not None:
        given["credential"] = _sealed(stores, upstream, body.credential)
    change = _change(given, body.limits)
    document = await _write(stores, upstream, change) if change else await _find(stores, upstream)
    await force.config(stores, upstream)
    return show(document)


@router.delete("/{upstream}")
async def delete(upstream: str, stores: StoresDep) -> dict[str, Any]:
    """Remove it; 409 while a model is served there. Its model's PUT and this meet at the config's number."""

    async def remove(session: Session) -> Document:
        await stores.cold.config_changed(session)
        used = await stores.cold.models.find_one({"targets.upstream": upstream}, session=session)
        if used is not None:
            raise Problem(409, "upstream_in_use", f"the model {used['_id']} is served there; change it first")
        found = await stores.cold.upstreams.find_one_and_delete({"_id": upstream}, session=session)
        if found is None:
            raise not_found("upstream")
        return found

    document = await in_transaction(stores.cold, remove)
    await force.config(stores, upstream)
    return show(document)


@router.post("/{upstream}/test")
async def test(upstream: str, stores: StoresDep) -> dict[str, Any]:
    """Send the smallest real request there, for the first model that it serves, with the credential that is in force.

    It is the operator's own: no account pays for it, and what the provider wrote is not shown. 409 without a model there.
    """
    either = [{"name": upstream}, {"_id": upstream}]
    document = await stores.cold.upstreams.find_one({"$or": either})
    if document is None:
        raise not_found("upstream")
    found = await stores.cold.models.find_one({"targets.upstream": document["_id"]}, sort=[("_id", 1)])
    if found is None:
        raise Problem(409, "no_model_there", "no model is served there yet; add one with PUT /v1/models/{name}")
    target = next(target["model"] for target in found["targets"] if target["upstream"] == document["_id"])
    purpose = catalogue.credential_purpose(document["_id"])
    credential = stores.vault.open(document["credential"], purpose=purpose).decode()
    came = await dry_run.ask(stores.settings, document, target, credential)
    price = price_form.show(price_of(found, version=found["price_version"]))
    return {"upstream": document["name"], "model": found["_id"], "asked_as": target, **came, "price": price}


def show(document: Document) -> dict[str, Any]:
    """An upstream without its credential."""
    shown = {name: document.get(name) for name in ("name", "provider", "base_url", *_PLAIN)}
    limits = dict(document.get("limits", {}))
    return {"id": document["_id"], **shown, "limits": limits, "created_at": show_time(document["created_at"])}


def _change(given: dict[str, Any], limits: LimitsBody | None) -> dict[str, dict[str, Any]]:
    """The MongoDB update; empty if nothing was given."""
    change = limits_change(limits.model_dump(exclude_unset=True)) if limits else {}
    change["$set"] = {**change.get("$set", {}), **given}
    return {operator: fields for operator, fields in change.items() if fields}


async def _write(stores: Stores, upstream: str, change: dict[str, dict[str, Any]]) -> Document:
    async def update(session: Session) -> Document:
        await stores.cold.config_changed(session)
        found = await stores.cold.upstreams.find_one_and_update(
            {"_id": upstream}, change, return_document=ReturnDocument.AFTER, session=session
        )
        if found is None:
            raise not_found("upstream")
        return found

    try:
        return await in_transaction(stores.cold, update)
    except DuplicateKeyError:
        raise _name_taken() from None


async def _find(stores: Stores, upstream: str) -> Document:
    document = await stores.cold.upstreams.find_one({"_id": upstream})
    if document is None:
        raise not_found("upstream")
    return document


def _address(stores: Stores, text: str) -> str:
    try:
        return addresses.base_url(text, private=stores.settings.allow_private_upstreams)
    except ValueError as error:
        raise invalid("base_url", str(error)) from None


def _sealed(stores: Stores, upstream: str, credential: SecretStr) -> str:
    text = credential.get_secret_value()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise invalid("credential", "must be printable ASCII without spaces: it travels in a header")
    return stores.vault.seal(text.encode(), purpose=catalogue.credential_purpose(upstream))


def _name_taken() -> Problem:
    return Problem(409, "upstream_exists", "another upstream has this name")
