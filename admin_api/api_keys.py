"""API keys: shown once, kept as a digest. A rotated key keeps its lineage, so its caps and rates go on as they were."""

import time
from datetime import datetime
from typing import Annotated, Any

from bson.int64 import Int64
from fastapi import APIRouter, Response
from pydantic import Field
from pymongo import ReturnDocument

from admin_api import accounts, force
from admin_api.fields import (
    Body,
    CapUsd,
    Endpoint,
    FutureTime,
    ModelName,
    Name,
    Network,
    Rate,
    limits_change,
    money_pair,
    show_time,
    show_us,
)
from admin_api.idempotency import Key, claim, once
from admin_api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from admin_api.problems import Problem, invalid, not_found
from admin_api.stores import Session, Stores, StoresDep
from ledger import catalogue, keys
from ledger.cold import Document, now

router = APIRouter(prefix="/v1/accounts/{account}/api-keys", tags=["api keys"])

_SCOPES = ("models", "endpoints", "networks")
_LIMITS = {
    "requests_per_minute": "requests_per_minute",
    "tokens_per_minute": "tokens_per_minute",
    "concurrency": "concurrency",
    "daily_cap_usd": "daily_cap_nanos",
    "monthly_cap_usd": "monthly_cap_nanos",
}
_MOST_GRACE_S = 90 * 86_400
_LOST = ". Its secret was not shown and cannot be: rotate the key then"


class KeyUse(Body):
    """What a key may be used for. An empty or absent scope allows everything; a limit that is null is none."""

    models: Annotated[list[ModelName], Field(max_length=200)] | None = None
    endpoints: Annotated[list[Endpoint], Field(max_length=50)] | None = None
    networks: Annotated[list[Network], Field(max_length=200)] | None = None
    expires_at: FutureTime | None = None
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    concurrency: Rate | None = None
    daily_cap_usd: CapUsd | None = None
    monthly_cap_usd: CapUsd | None = None


class NewKey(KeyUse):
    """An API key to be issued."""

    name: Name


class KeyChange(KeyUse):
    """What to change: null removes a scope, a limit or the expiry; what is not given stays."""

    name: Name | None = None


class Rotation(Body):
    """For how many seconds the old key still works; 0 ends it at once."""

    grace_seconds: Annotated[int, Field(ge=0, le=_MOST_GRACE_S)]


@router.post("", status_code=201)
async def issue(account: str, body: NewKey, response: Response, stores: StoresDep, key: Key = None) -> dict[str, Any]:
    owner = await accounts.find_open(stores, account)
    given = body.model_dump()
    fields = {
        "name": body.name,
        "policy": {scope: given[scope] for scope in _SCOPES if given[scope]},
        "limits": {kept: Int64(given[field]) for field, kept in _LIMITS.items() if given[field] is not None},
        "expires_us": _us(body.expires_at),
    }
    secret, document = await _mint(stores, owner, fields)

    async def insert(session: Session) -> None:
        await stores.cold.api_keys.insert_one(document, session=session)

    made_id, fresh = await once(stores.cold, claim(f"api_keys:{account}", key, body), document["_id"], insert)
    return await _answer(stores, response, account, made_id, secret if fresh else None)


@router.get("")
async def list_all(
    account: str, stores: StoresDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    await accounts.find(stores, account)
    place = after(cursor, str)
    where = {"account": account, **({"_id": {"$gt": place[0]}} if place else {})}
    found = await stores.cold.api_keys.find(where).sort("_id", 1).limit(limit + 1).to_list()
    return page(found, limit, show, lambda d: (d["_id"],))


@router.get("/{key_id}")
async def get(account: str, key_id: str, stores: StoresDep) -> dict[str, Any]:
    return show(await _find(stores, account, key_id))


@router.patch("/{key_id}")
async def change(account: str, key_id: str, body: KeyChange, stores: StoresDep) -> dict[str, Any]:
    given = body.model_dump(exclude_unset=True)
    if "name" in given and given["name"] is None:
        raise invalid("name", "cannot be null")
    update = limits_change({kept: given[field] for field, kept in _LIMITS.items() if field in given})
    for scope in _SCOPES:
        if scope in given:
            part = "$set" if given[scope] else "$unset"
            update[part][f"policy.{scope}"] = given[scope] or ""
    if "expires_at" in given:
        update["$set"]["expires_us"] = _us(given["expires_at"])
    if "name" in given:
        update["$set"]["name"] = given["name"]
    document = await _write(stores, account, key_id, update)
    await force.api_keys(stores, document)
    return show(document)


@router.post("/{key_id}/rotate", status_code=201)
async def rotate(
    account: str, key_id: str, body: Rotation, response: Response, stores: StoresDep, key: Key = None
) -> dict[str, Any]:
    """A new key of the same lineage with the same use; the old one ends after the grace."""
    owner = await accounts.find_open(stores, account)
    old = await _find(stores, account, key_id)
    fields = {name: old[name] for name in ("name", "policy", "limits", "expires_us")}
    secret, document = await _mint(stores, owner, fields, line=old["line"])

    async def replace(session: Session) -> None:
        await stores.cold.api_keys.insert_one(document, session=session)
        await _end_old(stores, old, document["_id"], body.grace_seconds, session)

    made_id, fresh = await once(stores.cold, claim(f"rotate:{key_id}", key, body), document["_id"], replace)
    old = await _find(stores, account, key_id)
    return await _answer(stores, response, account, made_id, secret if fresh else None, old)


@router.delete("/{key_id}")
async def revoke(account: str, key_id: str, stores: StoresDep) -> dict[str, Any]:
    document = await _find(stores, account, key_id)
    if document["status"] != "revoked":
        document = await _write(stores, account, key_id, {"$set": {"status": "revoked"}})
    if document["dirty"]:
        await force.api_keys(stores, document)
    return show(document)


def show(document: Document) -> dict[str, Any]:
    """A key as anybody may see it: nothing of its secret."""
    limits = document["limits"]
    counted = ("requests_per_minute", "tokens_per_minute", "concurrency")
    shown: dict[str, Any] = {
        "id": document["_id"],
        "account": document["account"],
        "line": document["line"],
        "name": document["name"],
        "status": document["status"],
        "expires_at": show_us(document["expires_us"]),
        "rotated_to": document.get("rotated_to"),
        "created_at": show_time(document["created_at"]),
        **{scope: list(document["policy"].get(scope, ())) for scope in _SCOPES},
        **{name: int(limits[name]) if name in limits else None for name in counted},
    }
    for cap in ("daily_cap", "monthly_cap"):
        nanos = limits.get(f"{cap}_nanos")
        shown |= {f"{cap}_nanos": None, f"{cap}_usd": None} if nanos is None else money_pair(cap, nanos)
    return shown


async def _mint(
    stores: Stores, owner: Document, fields: dict[str, Any], *, line: str | None = None
) -> tuple[str, Document]:
    """A new key's text, and its document, which has only the digest."""
    newest = await stores.cold.peppers.find_one(sort=[("number", -1)])
    assert newest is not None
    pepper = stores.vault.open(newest["sealed"], purpose=catalogue.pepper_purpose(newest["_id"]))
    secret, key_id = keys.mint(owner["partition"])
    return secret, {
        "_id": key_id,
        "account": owner["_id"],
        "partition": owner["partition"],
        "line": line or key_id,
        "digest": keys.digest(pepper, secret.encode()),
        "pepper": newest["_id"],
        "status": "active",
        "version": 1,
        "dirty": True,
        "created_at": now(),
        **fields,
    }


async def _answer(
    stores: Stores, response: Response, account: str, key_id: str, secret: str | None, *behind: Document
) -> dict[str, Any]:
    """Put a new key, then what it replaces, in force, and show it: with its secret if it was made just now."""
    document = await _find(stores, account, key_id)
    waiting = [d for d in (document, *behind) if d["dirty"]]
    await force.pepper(stores, key_id, _LOST if secret else "")
    await force.api_keys(stores, *waiting, more=_LOST if secret else "")
    response.status_code = 201 if secret else 200
    return {**show(document), "key": secret}


async def _end_old(stores: Stores, old: Document, new_id: str, grace_s: int, session: Session) -> None:
    """Expire the old key after the grace. Without one it is revoked: no clock has a say in that."""
    ends_us = time.time_ns() // 1_000 + grace_s * 1_000_000
    expires_us = ends_us if old["expires_us"] is None else min(ends_us, old["expires_us"])
    ended: dict[str, Any] = {"rotated_to": new_id, "expires_us": Int64(expires_us), "dirty": True}
    if grace_s == 0:
        ended["status"] = "revoked"
    found = await stores.cold.api_keys.find_one_and_update(
        {"_id": old["_id"], "status": "active", "rotated_to": None},
        {"$set": ended, "$inc": {"version": 1}},
        session=session,
    )
    if found is None:
        raise Problem(409, "key_ended", "the key is revoked, or was rotated before: rotate the one that replaced it")


async def _find(stores: Stores, account: str, key_id: str) -> Document:
    document = await stores.cold.api_keys.find_one({"_id": key_id, "account": account})
    if document is None:
        raise not_found("API key of this account")
    return document


async def _write(stores: Stores, account: str, key_id: str, update: dict[str, dict[str, Any]]) -> Document:
    """One write: the change, its number, and that it is not yet in force."""
    update["$set"]["dirty"] = True
    numbered = {"$inc": {"version": 1}, **{name: part for name, part in update.items() if part}}
    document = await stores.cold.api_keys.find_one_and_update(
        {"_id": key_id, "account": account}, numbered, return_document=ReturnDocument.AFTER
    )
    if document is None:
        raise not_found("API key of this account")
    return document


def _us(at: datetime | None) -> Int64 | None:
    return None if at is None else Int64(round(at.timestamp() * 1_000_000))
