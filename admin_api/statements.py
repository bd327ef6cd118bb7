"""Statements: what an account's days came to, as it was written down once."""

from typing import Any

from fastapi import APIRouter

from admin_api import accounts
from admin_api.fields import money_pair, show_time
from admin_api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from admin_api.stores import StoresDep
from ledger.cold import Document

router = APIRouter(prefix="/v1/accounts/{account}/statements", tags=["usage"])


@router.get("")
async def list_all(
    account: str, stores: StoresDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    """The account's statements, the latest first. A day without an event has none."""
    await accounts.find(stores, account)
    place = after(cursor, str)
    where: dict[str, Any] = {"account": account}
    if place:
        where["day"] = {"$lt": place[0]}
    found = await stores.cold.statements.find(where).sort("day", -1).limit(limit + 1).to_list()
    return page(found, limit, show, lambda d: (d["day"],))


def show(statement: Document) -> dict[str, Any]:
    return {
        "id": statement["_id"],
        "account": statement["account"],
        "day": statement["day"],
        "events": statement["count"],
        **money_pair("charge", statement["charge_nanos"]),
        **money_pair("shortfall", statement["shortfall_nanos"]),
        "debits": statement["debits"],
        **money_pair("debit", statement["debit_nanos"]),
        "per_model": [_of_model(part) for part in statement["per_model"]],
        "first": statement["first"],
        "last": statement["last"],
        "digest": statement["digest"],
        "previous": statement["previous"] or None,
        "written_at": show_time(statement["written_at"]),
    }


def _of_model(part: Document) -> dict[str, Any]:
    money = {**money_pair("charge", part["charge_nanos"]), **money_pair("shortfall", part["shortfall_nanos"])}
    usage = {bucket: int(amount) for bucket, amount in part["usage"].items()}
    return {"model": part["model"], "events": part["count"], **money, "usage": usage}
