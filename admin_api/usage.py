"""Usage: the events of an account, their sums, and every event of one request."""

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from admin_api import accounts
from admin_api.fields import money_pair
from admin_api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from admin_api.problems import invalid, not_found
from admin_api.stores import StoresDep
from ledger import events
from ledger.cold import Document

router = APIRouter(prefix="/v1", tags=["usage"])

From = Annotated[str | None, Query(alias="from", max_length=40, description="from this time on: RFC 3339, or a date")]
To = Annotated[str | None, Query(max_length=40, description="before this time: RFC 3339, or a date")]
Word = Annotated[str | None, Query(max_length=200)]

_INPUTS = (
    "input_uncached", "cache_read", "cache_write",
    "cache_write_5m", "cache_write_1h", "cache_write_30m", "cache_write_12h",
)  # fmt: skip


@router.get("/accounts/{account}/usage")
async def list_all(
    account: str,
    stores: StoresDep,
    from_: From = None,
    to: To = None,
    model: Word = None,
    key: Word = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """The account's usage events, the latest first."""
    await accounts.find(stores, account)
    where = _where(account, from_, to, model, key)
    place = after(cursor, int, str)
    if place:
        at = datetime.fromtimestamp(place[0] / 1000, UTC).replace(tzinfo=None)
        where["$or"] = [{"at": {"$lt": at}}, {"at": at, "_id": {"$lt": place[1]}}]
    order = [("at", -1), ("_id", -1)]
    found = await stores.cold.usage.find(where).sort(order).limit(limit + 1).to_list()
    return page(found, limit, events.public, lambda d: (_ms(d["at"]), d["_id"]))


@router.get("/accounts/{account}/usage/summary")
async def summary(
    account: str,
    stores: StoresDep,
    by: Literal["day", "model", "key"] = "day",
    from_: From = None,
    to: To = None,
    model: Word = None,
    key: Word = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Sums per UTC day, model or API key. A request is counted once, also where a `late` event followed it."""
    await accounts.find(stores, account)
    place = after(cursor, str)
    pipeline: list[dict[str, Any]] = [
        {"$match": _where(account, from_, to, model, key)},
        {
            "$group": {
                "_id": "$api_key" if by == "key" else f"${by}",
                "requests": {"$sum": {"$cond": [{"$eq": ["$end", "late"]}, 0, 1]}},
                "input_tokens": {"$sum": {"$add": [_bucket(name) for name in _INPUTS]}},
                "output_tokens": {"$sum": _bucket("output")},
                "charge_nanos": {"$sum": "$charge_nanos"},
                "shortfall_nanos": {"$sum": "$shortfall_nanos"},
            }
        },
        *([{"$match": {"_id": {"$gt": place[0]}}}] if place else []),
        {"$sort": {"_id": 1}},
        {"$limit": limit + 1},
    ]
    found = await (await stores.cold.usage.aggregate(pipeline)).to_list()
    return page(found, limit, lambda d: _sum(by, d), lambda d: (d["_id"],))


@router.get("/usage/{request_id}")
async def of_request(request_id: str, stores: StoresDep) -> dict[str, Any]:
    """Every event of one request, and what they come to."""
    of_request = {"_id": {"$in": events.ids_of(request_id)}, "request_id": request_id}
    found = await stores.cold.usage.find(of_request).sort("_id", 1).to_list()
    if not found:
        raise not_found("request, or it has not reached the ledger yet")
    return {
        "request_id": request_id,
        "events": [events.public(document) for document in found],
        **money_pair("charge", sum(document["charge_nanos"] for document in found)),
        **money_pair("shortfall", sum(document["shortfall_nanos"] for document in found)),
    }


def _where(account: str, from_: str | None, to: str | None, model: str | None, key: str | None) -> dict[str, Any]:
    where: dict[str, Any] = {"account": account}
    between = {word: at for word, at in (("$gte", _time("from", from_)), ("$lt", _time("to", to))) if at is not None}
    if between:
        where["at"] = between
    if model is not None:
        where["model"] = model
    if key is not None:
        where["api_key"] = key
    return where


def _time(field: str, text: str | None) -> datetime | None:
    """As MongoDB keeps it: UTC, without a zone."""
    if text is None:
        return None
    try:
        if len(text) == len("2026-01-31"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day)  # noqa: DTZ001
        at = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(field, "must be a date or an RFC 3339 time, such as 2026-01-31T12:00:00Z") from None
    if at.tzinfo is None:
        raise invalid(field, "needs a time zone, such as Z")
    return at.astimezone(UTC).replace(tzinfo=None)


def _sum(by: str, document: Document) -> dict[str, Any]:
    counts = {name: int(document[name]) for name in ("requests", "input_tokens", "output_tokens")}
    return {
        by: document["_id"],
        **counts,
        **money_pair("charge", document["charge_nanos"]),
        **money_pair("shortfall", document["shortfall_nanos"]),
    }


def _bucket(name: str) -> dict[str, Any]:
    return {"$ifNull": [f"$usage.{name}", 0]}


def _ms(at: datetime) -> int:
    return round(at.replace(tzinfo=UTC).timestamp() * 1000)
