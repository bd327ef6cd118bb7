"""Plans: limits, free requests, markup and retention that many accounts share. MongoDB is the truth, as for accounts.

An account keeps its own limits apart from its plan's, and beside them what follows from both, which is what `publish` puts
in force. It also keeps which version of the plan that was made with, so that whoever comes across an account that was
written beside a change of its plan can tell, and mends it (`current`): no transaction has to span all accounts of a plan.
"""

from collections.abc import Iterable
from typing import Any

from bson.int64 import Int64
from pymongo import ReturnDocument

from ledger.cold import ColdBook, Document, now

NO_PLAN: Document = {"plan": None, "plan_version": 0, "plan_limits": {}, "policy": {}, "free_requests": 0}


def inherited(plan: Document | None) -> Document:
    """The fields that an account has from its plan."""
    if plan is None:
        return NO_PLAN
    return {
        "plan": plan["_id"],
        "plan_version": plan["version"],
        "plan_limits": plan["limits"],
        "policy": {"markup_ppm": plan["markup_ppm"], "on_abandoned": plan["on_abandoned"]},
        "free_requests": plan["free_requests"],
    }


def of_new_account(plan: Document | None, limits: dict[str, int]) -> Document:
    """The fields of a new account that its plan has a say in."""
    own = {name: Int64(value) for name, value in limits.items()}
    fields = inherited(plan)
    return {**fields, "own_limits": own, "limits": {**fields["plan_limits"], **own}}


def change(
    fields: Document, *, own_limits: dict[str, int] | None = None, without: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """The update of an account that sets these fields and own limits, takes some away, and numbers what comes of it."""
    given = {name: Int64(value) for name, value in (own_limits or {}).items()}
    # Accounts of before there were plans have their own limits in `limits`. A value is wrapped: a name may begin with $.
    own = {"$mergeObjects": [{"$ifNull": ["$own_limits", "$limits"]}, {"$literal": given}]}
    stages: list[dict[str, Any]] = [
        {"$set": {"own_limits": own, **{name: {"$literal": value} for name, value in fields.items()}}},
    ]
    removed = [f"own_limits.{name}" for name in without]
    if removed:
        stages.append({"$unset": removed})
    limits = {"$mergeObjects": [{"$ifNull": ["$plan_limits", {}]}, "$own_limits"]}
    stages.append({"$set": {"limits": limits, "version": {"$add": ["$version", 1]}, "dirty": True}})
    return stages


async def put(cold: ColdBook, name: str, fields: Document) -> Document:
    """Write a plan, whole, under its next version. It is `dirty` until all of its accounts have it in force."""
    literal = {field: {"$literal": value} for field, value in fields.items()}
    first = {"$ifNull": ["$created_at", {"$literal": now()}]}
    version = {"$add": [{"$ifNull": ["$version", 0]}, 1]}
    update = [{"$set": {**literal, "version": version, "dirty": True, "created_at": first}}]
    found = await cold.plans.find_one_and_update(
        {"_id": name}, update, upsert=True, return_document=ReturnDocument.AFTER
    )
    assert found is not None
    return found


async def spread(cold: ColdBook, plan: Document) -> None:
    """Change every account of the plan that does not have this version yet, or a later one. May be repeated."""
    behind = {"plan": plan["_id"], "plan_version": {"$lt": plan["version"]}}
    await cold.accounts.update_many(behind, change(inherited(plan)))


async def current(cold: ColdBook, account: Document) -> Document:
    """The account with its plan as it is now: it may have been written with a version that a change was overtaking."""
    name = account.get("plan")
    plan = await cold.plans.find_one({"_id": name}) if name is not None else None
    if plan is None or account.get("plan_version", 0) >= plan["version"]:
        return account
    behind = {"_id": account["_id"], "plan": name, "plan_version": {"$lt": plan["version"]}}
    await cold.accounts.update_one(behind, change(inherited(plan)))
    found = await cold.accounts.find_one({"_id": account["_id"]})
    assert found is not None
    return found


async def is_clean(cold: ColdBook, plan: Document) -> None:
    """Note that this version of a plan is in force for all, unless it has changed again meanwhile."""
    await cold.plans.update_one({"_id": plan["_id"], "version": plan["version"]}, {"$set": {"dirty": False}})
