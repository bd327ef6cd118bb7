"""Plans: what many accounts have in common. A PUT changes all of a plan's accounts, and is in force for all at its 200."""

from typing import Annotated, Any, Literal

from bson.int64 import Int64
from fastapi import APIRouter, Path, Response
from pydantic import Field

from admin_api import force
from admin_api.fields import Body, Factor, LimitsBody, Slug, show_picos, show_time
from admin_api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from admin_api.problems import not_found
from admin_api.stores import StoresDep
from ledger import plans
from ledger.cold import Document
from ledger.prices import PPM
from ledger.statements import RETENTION_DAYS

router = APIRouter(prefix="/v1/plans", tags=["plans"])

PathName = Annotated[Slug, Path()]


class PlanForm(Body):
    """The whole of a plan; PUT replaces it.

    `free_requests` is how many requests of an account cost nothing in each UTC month. `retention_days` is how long single
    usage events are kept after the statement of their day.
    """

    retention_days: Annotated[int, Field(ge=1, le=36_500)] = RETENTION_DAYS
    free_requests: Annotated[int, Field(ge=0, le=10**9)] = 0
    limits: LimitsBody = LimitsBody()
    markup: Factor = PPM
    on_abandoned: Literal["release", "charge_input", "charge_hold"] = "release"


@router.put("/{name}")
async def put(name: PathName, body: PlanForm, response: Response, stores: StoresDep) -> dict[str, Any]:
    """Set a plan; 201 if it is new. Every request that is admitted after the answer goes by it."""
    limits = body.limits.model_dump(exclude_none=True)
    fields: Document = {
        "retention_days": body.retention_days,
        "free_requests": body.free_requests,
        "limits": {limit: Int64(value) for limit, value in limits.items()},
        "markup_ppm": Int64(body.markup),
        "on_abandoned": body.on_abandoned,
    }
    document = await plans.put(stores.cold, name, fields)
    await force.plan(stores, document)
    response.status_code = 201 if document["version"] == 1 else 200
    return show(document)


@router.get("")
async def list_all(stores: StoresDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> dict[str, Any]:
    place = after(cursor, str)
    where = {"_id": {"$gt": place[0]}} if place else {}
    found = await stores.cold.plans.find(where).sort("_id", 1).limit(limit + 1).to_list()
    return page(found, limit, show, lambda d: (d["_id"],))


@router.get("/{name}")
async def get(name: PathName, stores: StoresDep) -> dict[str, Any]:
    document = await stores.cold.plans.find_one({"_id": name})
    if document is None:
        raise not_found("plan")
    return show(document)


def show(document: Document) -> dict[str, Any]:
    return {
        "name": document["_id"],
        "retention_days": int(document["retention_days"]),
        "free_requests": int(document["free_requests"]),
        "limits": {limit: int(value) for limit, value in document["limits"].items()},
        "markup": show_picos(document["markup_ppm"], scale=PPM),
        "on_abandoned": document["on_abandoned"],
        "version": int(document["version"]),
        "created_at": show_time(document["created_at"]),
    }
