"""Debits: money out. The request is written, then the hot book decides whether it is covered; a refusal is final.

A debit has a number of the same count as the account's grants, so both are one list; the number moves no total.
"""

from datetime import UTC, datetime
from typing import Any

from bson.int64 import Int64
from pymongo import ReturnDocument

from admin_api import accounts, force
from admin_api.fields import money_pair, show_time
from admin_api.idempotency import Claim, once
from admin_api.problems import REDIS_AWAY, Problem, invalid
from admin_api.stores import Session, Stores
from ledger import debits, money
from ledger.cold import Document, now

KINDS = ("refund", "correction")


async def create(
    stores: Stores, account: str, nanos: int, kind: str, reference: str | None, claim: Claim, debit_id: str
) -> tuple[int, dict[str, Any]]:
    """(status, the debit) of taking out `-nanos`: 201 applied, 200 applied before, 202 pending; problem 409 if refused."""
    if kind not in KINDS:
        raise invalid("amount_usd", f"can be negative only for {' and '.join(KINDS)}")
    document = await accounts.find(stores, account)
    if document["dirty"]:
        await force.account_if_able(stores, document)  # or money that is in already would not be seen
    at = now()
    request: Document = {
        "_id": debit_id,
        "account": account,
        "partition": document["partition"],
        "amount_nanos": Int64(-nanos),
        "kind": kind,
        "reference": reference,
        "created_at": at,
        "asked_us": Int64(_us(at)),
        "status": "pending",
        "booked": False,
    }

    async def write(session: Session) -> None:
        numbered = await stores.cold.accounts.find_one_and_update(
            {"_id": account}, {"$inc": {"grant_number": 1}}, return_document=ReturnDocument.AFTER, session=session
        )
        request["number"] = 0 if numbered is None else numbered["grant_number"]
        await stores.cold.debit_requests.insert_one(request, session=session)

    _, fresh = await once(stores.cold, claim, debit_id, write)
    written = await stores.cold.debit_requests.find_one({"_id": debit_id})
    assert written is not None
    if written["status"] == "pending":
        try:
            written["status"] = await debits.apply(stores.cold, stores.redis, written)
        except REDIS_AWAY:
            return 202, show(written)
    if written["status"] == "refused":
        raise await _refused(stores, debit_id)
    status = 202 if written["status"] == "pending" else 201 if fresh else 200
    return status, show(written)


async def found(stores: Stores, account: str, after: int, limit: int) -> list[Document]:
    """The account's debits after a number, in order; what was refused never was one."""
    where = {"account": account, "number": {"$gt": after}, "status": {"$ne": "refused"}}
    return await stores.cold.debit_requests.find(where).sort("number", 1).limit(limit).to_list()


def show(request: Document) -> dict[str, Any]:
    return {
        "id": request["_id"],
        "account": request["account"],
        **money_pair("amount", -request["amount_nanos"]),
        "kind": request["kind"],
        "reference": request["reference"],
        "number": request["number"],
        "created_at": show_time(request["created_at"]),
        "status": request["status"],
    }


async def _refused(stores: Stores, debit_id: str) -> Problem:
    request = await stores.cold.debit_requests.find_one({"_id": debit_id}) or {}
    needed, available = (int(text) for text in request.get("details", ("0", "0")))
    detail = f"${money.format_usd(needed)} were asked for and ${money.format_usd(available)} were available"
    pairs = money_pair("needed", needed) | money_pair("available", available)
    return Problem(409, "insufficient_balance", detail, **pairs)


def _us(at: datetime) -> int:
    return round(at.replace(tzinfo=UTC).timestamp() * 1_000_000)
