"""Grants: money in. Append only, and each at most once: one transaction writes the grant and the account's total.

Money out comes in by the same route, as a negative amount, and is another thing: see `debits`.

The total is what Redis gets (`credited`, absolutely, with the grant's number), so repeating that step adds nothing.
"""

from typing import Annotated, Any, Literal

from bson.int64 import Int64
from fastapi import APIRouter, Response
from pydantic import Field
from pymongo import ReturnDocument

from admin_api import accounts, balances, debits, force
from admin_api.fields import Body, Usd, money_pair, show_time
from admin_api.idempotency import Key, claim, once
from admin_api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from admin_api.problems import REDIS_AWAY, Problem, invalid
from admin_api.stores import Session, Stores, StoresDep
from ledger.cold import Document, now
from ledger.money import MAX_NANOS

router = APIRouter(prefix="/v1/accounts/{account}/grants", tags=["credits"])


class NewGrant(Body):
    """Money to put in; a negative refund or correction takes it out, if it is covered."""

    amount_usd: Usd
    kind: Literal["top_up", "bonus", "refund", "correction"]
    reference: Annotated[str, Field(max_length=200)] | None = None


@router.post("", status_code=201, responses={202: {"description": "written, not yet in force"}})
async def create(
    account: str, body: NewGrant, response: Response, stores: StoresDep, key: Key = None
) -> dict[str, Any]:
    if key is None:
        detail = "send an Idempotency-Key header, such as a fresh UUID, so that a repeat cannot credit twice"
        raise Problem(400, "idempotency_key_required", detail)
    if body.amount_usd == 0:
        raise invalid("amount_usd", "must not be zero")
    of_body = claim(f"grants:{account}", key, body)
    assert of_body is not None
    if body.amount_usd < 0:
        out = (account, body.amount_usd, body.kind, body.reference, of_body, f"{account}:{key}")
        response.status_code, debit = await debits.create(stores, *out)
        return debit
    await accounts.find(stores, account)
    grant: Document = {
        "_id": f"{account}:{key}",
        "account": account,
        "amount_nanos": Int64(body.amount_usd),
        "kind": body.kind,
        "reference": body.reference,
        "created_at": now(),
    }
    grant["digest"] = of_body.digest
    spent = await _spent(stores, account)

    async def write(session: Session) -> None:
        grant["number"] = await _add(stores, grant, spent, session)
        await stores.cold.grants.insert_one(grant, session=session)

    _, fresh = await once(stores.cold, of_body, grant["_id"], write)
    applied = await _apply(stores, account)
    response.status_code = 202 if not applied else 201 if fresh else 200
    written = await stores.cold.grants.find_one({"_id": grant["_id"]})
    assert written is not None
    return show(written, applied=applied)


@router.get("")
async def list_all(
    account: str, stores: StoresDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    document = await accounts.find(stores, account)
    place = after(cursor, int)
    last = place[0] if place else 0
    where = {"account": account, "number": {"$gt": last}}
    found = await stores.cold.grants.find(where).sort("number", 1).limit(limit + 1).to_list()
    found += await debits.found(stores, account, last, limit + 1)
    found.sort(key=lambda d: d["number"])
    applied = await _applied_number(stores, document)

    def shown(d: Document) -> dict[str, Any]:
        return debits.show(d) if "asked_us" in d else show(d, applied=d["number"] <= applied)

    return page(found[: limit + 1], limit, shown, lambda d: (d["number"],))


def show(grant: Document, *, applied: bool) -> dict[str, Any]:
    return {
        "id": grant["_id"],
        "account": grant["account"],
        **money_pair("amount", grant["amount_nanos"]),
        "kind": grant["kind"],
        "reference": grant["reference"],
        "number": grant["number"],
        "created_at": show_time(grant["created_at"]),
        "status": "applied" if applied else "pending",
    }


async def _spent(stores: Stores, account: str) -> int:
    """What the account has spent at least; 0, the cautious number, while Redis is away. It only ever grows."""
    try:
        return (await balances.of(stores.redis, await accounts.find(stores, account))).spent_nanos
    except REDIS_AWAY:
        return 0


async def _add(stores: Stores, grant: Document, spent: int, session: Session) -> int:
    """Add to the account's total; the grant's number. Refused if the balance could pass what Lua can count."""
    most = MAX_NANOS + spent - grant["amount_nanos"]
    document = await stores.cold.accounts.find_one_and_update(
        {"_id": grant["account"], "status": {"$ne": "closed"}, "credited_nanos": {"$lte": Int64(most)}},
        {"$inc": {"grant_number": 1, "credited_nanos": grant["amount_nanos"]}, "$set": {"dirty": True}},
        return_document=ReturnDocument.AFTER,
        session=session,
    )
    if document is None:
        found = await stores.cold.accounts.find_one({"_id": grant["account"]}, session=session)
        if found is None or found["status"] == "closed":
            raise accounts.closed()
        raise invalid("amount_usd", "the balance would pass the most that an account can hold, $9,007,199.25")
    return int(document["grant_number"])


async def _apply(stores: Stores, account: str) -> bool:
    """Whether the account's total is in force, put there if it was not."""
    document = await accounts.find(stores, account)
    return not document["dirty"] or await force.account_if_able(stores, document)


async def _applied_number(stores: Stores, document: Document) -> int:
    """The last grant that is in force; while Redis is away, of an account that is behind, none is known to be."""
    if not document["dirty"]:
        return int(document["grant_number"])
    try:
        return (await balances.of(stores.redis, document)).grant_number
    except REDIS_AWAY:
        return 0
