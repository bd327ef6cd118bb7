"""Accounts: who pays. Each change is one write that numbers it, and is in force when it has been answered with 200."""

import secrets
from typing import Any, Literal

from bson.int64 import Int64
from fastapi import APIRouter, Response
from pymongo import ReturnDocument

from admin_api import balances, force
from admin_api.fields import Body, Email, LimitsBody, Name, limits_change, show_time
from admin_api.idempotency import Key, claim, once
from admin_api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from admin_api.problems import Problem, invalid, not_found
from admin_api.stores import Session, Stores, StoresDep
from ledger import keys
from ledger.cold import Document, now

router = APIRouter(prefix="/v1/accounts", tags=["accounts"])


class NewAccount(Body):
    """An account to be made. It starts with no credit and no limits but those given."""

    name: Name
    email: Email | None = None
    plan: Name | None = None
    limits: LimitsBody = LimitsBody()


class AccountChange(Body):
    """What to change; a limit given as null is removed, what is not given stays."""

    name: Name | None = None
    email: Email | None = None
    status: Literal["active", "suspended"] | None = None
    plan: Name | None = None
    limits: LimitsBody | None = None


@router.post("", status_code=201)
async def create(body: NewAccount, response: Response, stores: StoresDep, key: Key = None) -> dict[str, Any]:
    _refuse_plan(body.plan)
    document: Document = {
        "_id": f"acct_{keys.new_id()}",
        "name": body.name,
        "email": body.email,
        "plan": None,
        "partition": f"{secrets.randbelow(256):02x}",
        "status": "active",
        "limits": {name: Int64(value) for name, value in body.limits.model_dump(exclude_none=True).items()},
        "policy": {},
        "version": 1,
        "grant_number": 0,
        "credited_nanos": Int64(0),
        "dirty": True,
        "created_at": now(),
    }

    async def insert(session: Session) -> None:
        await stores.cold.accounts.insert_one(document, session=session)

    made_id, fresh = await once(stores.cold, claim("accounts", key, body), document["_id"], insert)
    response.status_code = 201 if fresh else 200
    return await in_force(stores, await find(stores, made_id))


@router.get("")
async def list_all(stores: StoresDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> dict[str, Any]:
    place = after(cursor, str)
    where = {"_id": {"$gt": place[0]}} if place else {}
    found = await stores.cold.accounts.find(where).sort("_id", 1).limit(limit + 1).to_list()
    shown = found[:limit]
    read = await balances.read(stores.redis, shown)
    by_id = {document["_id"]: balance for document, balance in zip(shown, read, strict=True)}
    return page(found, limit, lambda d: show(d, by_id[d["_id"]]), lambda d: (d["_id"],))


@router.get("/{account}")
async def get(account: str, stores: StoresDep) -> dict[str, Any]:
    document = await find(stores, account)
    return show(document, await balances.of(stores.redis, document))


@router.patch("/{account}")
async def change(account: str, body: AccountChange, stores: StoresDep) -> dict[str, Any]:
    given = body.model_dump(exclude_unset=True, exclude={"limits"})
    _refuse_plan(given.pop("plan", None))
    for field in ("name", "status"):
        if field in given and given[field] is None:
            raise invalid(field, "cannot be null")
    update = limits_change(body.limits.model_dump(exclude_unset=True) if body.limits else {})
    update["$set"] |= given
    return await in_force(stores, await _write(stores, account, update))


@router.delete("/{account}")
async def close(account: str, stores: StoresDep) -> dict[str, Any]:
    """Close for good. A request that is admitted during the close still settles on the account."""
    document = await find(stores, account)
    balance = await balances.of(stores.redis, document)
    if balance.live > 0 or balance.held_nanos > 0:
        detail = f"{balance.live} requests are in flight; suspend the account and close it when they have ended"
        raise Problem(409, "holds_live", detail)
    if document["status"] != "closed":
        document = await _write(stores, account, {"$set": {"status": "closed"}})
    return await in_force(stores, document)


async def find(stores: Stores, account: str) -> Document:
    """The account, or problem 404."""
    document = await stores.cold.accounts.find_one({"_id": account})
    if document is None:
        raise not_found("account")
    return document


async def find_open(stores: Stores, account: str) -> Document:
    """The account if it is not closed, or problem 404 or 409."""
    document = await find(stores, account)
    if document["status"] == "closed":
        raise closed()
    return document


def closed() -> Problem:
    return Problem(409, "account_closed", "the account is closed")


async def in_force(stores: Stores, document: Document) -> dict[str, Any]:
    """Put this version in force and show it; problem 503 `pending` if Redis cannot take it now."""
    if document["dirty"]:
        await force.account(stores, document)
    return show(document, await balances.of(stores.redis, document))


def show(document: Document, balance: balances.Balance) -> dict[str, Any]:
    return {
        "id": document["_id"],
        "name": document["name"],
        "email": document["email"],
        "plan": document["plan"],
        "status": document["status"],
        "partition": document["partition"],
        "limits": {name: int(value) for name, value in document["limits"].items()},
        "created_at": show_time(document["created_at"]),
        "balance": balance.shown(),
    }


async def _write(stores: Stores, account: str, update: dict[str, dict[str, Any]]) -> Document:
    """One write: the change, its number, and that it is not yet in force."""
    update["$set"]["dirty"] = True
    numbered = {"$inc": {"version": 1}, **{name: part for name, part in update.items() if part}}
    document = await stores.cold.accounts.find_one_and_update(
        {"_id": account, "status": {"$ne": "closed"}}, numbered, return_document=ReturnDocument.AFTER
    )
    if document is None:
        await find(stores, account)
        raise closed()
    return document


def _refuse_plan(plan: str | None) -> None:
    if plan is not None:
        raise invalid("plan", "there is no such plan; plans are not served by this version yet")
