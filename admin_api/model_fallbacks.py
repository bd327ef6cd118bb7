"""Fallbacks: the models that may serve in place of another one, and what a list of them may not be."""

from collections.abc import Mapping, Sequence
from typing import Any

from admin_api.problems import Problem, invalid
from admin_api.stores import Session, Stores
from ledger.catalogue import FAMILIES
from ledger.cold import Document


async def check(
    stores: Stores, name: str, wanted: Sequence[str], targets: Sequence[Document], session: Session
) -> None:
    """Problem 422, about the one that is wrong: unknown, listed twice, of another dialect, or back to the model itself."""
    if not wanted:
        return
    found = stores.cold.models.find({}, {"fallbacks": 1, "targets": 1}, session=session)
    models = {each["_id"]: each async for each in found}
    providers = {each["_id"]: each["provider"] async for each in stores.cold.upstreams.find({}, session=session)}
    dialects = _dialects(targets, providers)
    for index, other in enumerate(wanted):
        field = f"fallbacks.{index}"
        if other == name:
            raise invalid(field, "a model cannot stand in for itself")
        if other in wanted[:index]:
            raise invalid(field, "this model is listed twice")
        if other not in models:
            raise invalid(field, "there is no model of this name")
        if not dialects & _dialects(models[other]["targets"], providers):
            raise invalid(field, "this model speaks another dialect")
        if _leads_to(other, name, models):
            raise invalid(field, "this model falls back on the one that is being set: a cycle")


async def refuse_if_needed(stores: Stores, name: str, session: Session) -> None:
    """Problem 409 while another model falls back on this one."""
    used = await stores.cold.models.find_one({"fallbacks": name}, session=session)
    if used is not None:
        raise Problem(409, "model_in_use", f"the model {used['_id']} falls back on it; change that one first")


def _dialects(targets: Sequence[Document], providers: Mapping[str, str]) -> set[str]:
    return {FAMILIES[providers[target["upstream"]]] for target in targets}


def _leads_to(start: str, end: str, models: Mapping[str, Any]) -> bool:
    """Whether one's list, or that of those on it, comes to the other."""
    seen, left = set[str](), [start]
    while left:
        name = left.pop()
        if name == end:
            return True
        if name not in seen:
            seen.add(name)
            left += models.get(name, {}).get("fallbacks", [])
    return False
