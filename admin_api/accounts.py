"""Accounts: who pays. Each change is one write that numbers it, and is in force when it has been answered with 200."""

import secrets
from typing import Any, Literal

from bson.int64 import Int64
from fastapi import APIRouter, Response
from pymongo import ReturnDocument

from admin_api import balances, force
from admin_api.fields import Body, Email, LimitsBody, Name, show_time
from admin_api.idempotency import Key, claim, once
from admin_api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from admin_api.problems import Problem, invalid, not_found
from admin_api.stores import Session, Stores, StoresDep
from ledger import keys, plans
from ledger.cold import Document, now

router = APIRouter(prefix="/v1/accounts", tags=["accounts"])


class NewAccount(Body):
    """An account to be made. It starts with no credit and no limits but its plan's, and those given, which go first.

    `fit_to_balance`: an output cap of a caller that the balance does not cover is lowered to what it does cover (never
    below 4,096 tokens, 16,384 for models that reason) and announced in `x-weir-output-cap`; otherwise it is a 402.
    """

    name: Name
    email: Email | None = None
    plan: Name | None = None
    limits: LimitsBody = LimitsBody()
    fit_to_balance: bool = False


class AccountChange(Body):
    """What to change; what is not given stays. A limit or a plan given as null is removed: then the plan's limit holds."""

    name: Name | None = None
    email: Email | None = None
    status: Literal["active", "suspended"] | None = None
    plan: Name | None = None
    limits: LimitsBody | None = None
    fit_to_balance: bool | None = None


@router.post("", status_code=201)
async def create(body: NewAccount, response: Response, stores: StoresDep, key: Key = None) -> dict[str, Any]:
    plan = await _plan(stores, body.plan)
    document: Document = {
        "_id": f"acct_{keys.new_id()}",
        "name": body.name,
        "email": body.email,
        "partition": f"{secrets.randbelow(256):02x}",
        "status": "active",
        "fit_to_balance": body.fit_to_balance,
        **plans.of_new_account(plan, body.limits.model_dump(exclude_none=True)),
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
    for field in ("name", "status", "fit_to_balance"):
        if field in given and given[field] is None:
            raise invalid(field, "cannot be null")
    if "plan" in given:
        given |= plans.inherited(await _plan(stores, given["plan"]))
    limits = body.limits.model_dump(exclude_unset=True) if body.limits else {}
    own = {name: value for name, value in limits.items() if value is not None}
    update = plans.change(given, own_limits=own, without=limits.keys() - own.keys())
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
        document = await _write(stores, account, plans.change({"status": "closed"}))
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
        document = await force.account(stores, document)
    return show(document, await balances.of(stores.redis, document))


def show(document: Document, balance: balances.Balance) -> dict[str, Any]:
    own = document["own_limits"] if "own_limits" in document else document["limits"]
    return {
        "id": document["_id"],
        "name": document["name"],
        "email": document["email"],
        "plan": document["plan"],
        "status": document["status"],
        "partition": document["partition"],
        "limits": {name: int(value) for name, value in document["limits"].items()},
        "own_limits": {name: int(value) for name, value in own.items()},
        "free_requests": int(document.get("free_requests", 0)),
        "fit_to_balance": document.get("fit_to_balance", False),
        "created_at": show_time(document["created_at"]),
        "balance": balance.shown(),
    }


async def _write(stores: Stores, account: str, update: list[dict[str, Any]]) -> Document:
    """One write: the change, its number, and that it is not yet in force."""
    document = await stores.cold.accounts.find_one_and_update(
        {"_id": account, "status": {"$ne": "closed"}}, update, return_document=ReturnDocument.AFTER
    )
    if document is None:
        await find(stores, account)
        raise closed()
    return document


async def _plan(stores: Stores, name: str | None) -> Document | None:
    """The plan of that name, or problem 422."""
    if name is None:
        return None
    found = await stores.cold.plans.find_one({"_id": name})
    if found is None:
        raise invalid("plan", "there is no plan of this name; PUT /v1/plans/{name} makes one")
    return found
