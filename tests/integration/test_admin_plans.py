"""Plans through the admin API: what an account gets from its plan, and that a change of it has no lag."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ledger import hot, keyspace, plans, publish
from ledger.cold import ColdBook, Document
from ledger.hot import Admitted, Offer, Place, Refused, Versions
from ledger.link import Link
from ledger.vault import Vault
from tests.integration.admin import Api, hashed, serving
from weir.bundled import free_port

GOLD = {
    "retention_days": 30,
    "free_requests": 2,
    "limits": {"requests_per_minute": 60, "concurrency": 4},
    "markup": "1.25",
    "on_abandoned": "charge_input",
}

PLAIN = '{"markup_ppm":1000000,"on_abandoned":"release"}'


@pytest.fixture
async def api(cold: ColdBook, opened: Link, vault: Vault) -> AsyncIterator[Api]:
    async with serving(cold, opened, vault) as served:
        yield served


@pytest.fixture
async def cut_off(cold: ColdBook, vault: Vault) -> AsyncIterator[Api]:
    """The same API on the same MongoDB, with nothing where its Redis should be."""
    async with (
        Link(f"redis://127.0.0.1:{free_port()}", deadline_s=0.5) as nowhere,
        serving(cold, nowhere, vault) as served,
    ):
        yield served


async def _kept(cold: ColdBook, account: str) -> Document:
    document = await cold.accounts.find_one({"_id": account})
    assert document is not None
    return document


async def _in_force(cold: ColdBook, redis: Link, account: str) -> dict[str, str]:
    """The account's policy in Redis, which must be that of the version that MongoDB has."""
    document = await _kept(cold, account)
    stored = await hashed(redis, keyspace.account(document["partition"], account))
    assert (stored["ver"], document["dirty"]) == (str(document["version"]), False)
    return {name: stored[name] for name in ("policy", "free", "rpm", "tpm", "conc") if name in stored}


async def test_a_plan_is_set_replaced_and_shown(api: Api) -> None:
    made = await api("PUT", "/plans/gold", GOLD, status=201)
    assert made == {"name": "gold", **GOLD, "version": 1, "created_at": made["created_at"]}
    assert await api("GET", "/plans/gold") == made
    plain = await api("PUT", "/plans/gold", {})
    defaults = {"retention_days": 90, "free_requests": 0, "limits": {}, "markup": "1.00", "on_abandoned": "release"}
    assert plain == {"name": "gold", **defaults, "version": 2, "created_at": made["created_at"]}
    await api("PUT", "/plans/a.b-c_1", {"markup": 0.5}, status=201)
    listed = await api("GET", "/plans", limit=1)
    assert [plan["name"] for plan in listed["items"]] == ["a.b-c_1"]
    assert (await api("GET", "/plans", cursor=listed["next_cursor"]))["items"] == [plain]


async def test_plans_refuse(api: Api) -> None:
    bodies: list[Any] = [
        *({"retention_days": 0}, {"retention_days": 36_501}, {"free_requests": -1}, {"free_requests": 10**9 + 1}),
        *({"markup": "0"}, {"markup": "-1"}, {"markup": "1.0000001"}, {"on_abandoned": "keep"}, {"more": 1}),
        *({"limits": {"concurrency": 0}}, {"limits": {"daily_cap_usd": "1"}}, [], None),
    ]
    for body in bodies:
        await api("PUT", "/plans/p", body, status=422)
    for name in ("-p", "a%20b", "$p", "p" * 65):
        await api("PUT", f"/plans/{name}", {}, status=422)
    await api("GET", "/plans/p", status=404)
    assert (await api("POST", "/accounts", {"name": "a", "plan": "p"}, status=422))["errors"][0]["field"] == "plan"
    account = await api.account()
    await api("PATCH", f"/accounts/{account}", {"plan": "p"}, status=422)
    await api("DELETE", "/plans/p", status=405)


async def test_an_account_has_its_plans_limits_and_its_own_go_first(api: Api, cold: ColdBook, opened: Link) -> None:
    await api("PUT", "/plans/gold", GOLD, status=201)
    body = {"name": "$version", "plan": "gold", "limits": {"concurrency": 9, "tokens_per_minute": 7}}
    made = await api("POST", "/accounts", body, status=201)
    account, one = made["id"], f"/accounts/{made['id']}"
    assert (made["name"], made["plan"], made["free_requests"]) == ("$version", "gold", 2)
    assert made["limits"] == {"requests_per_minute": 60, "concurrency": 9, "tokens_per_minute": 7}
    assert made["own_limits"] == body["limits"]
    policy = '{"markup_ppm":1250000,"on_abandoned":"charge_input"}'
    assert await _in_force(cold, opened, account) == {
        "policy": policy, "free": "2", "rpm": "60", "tpm": "7", "conc": "9",
    }  # fmt: skip
    change = {"name": "$name", "limits": {"concurrency": None, "requests_per_minute": 5}}
    changed = await api("PATCH", one, change)
    assert (changed["name"], changed["plan"]) == ("$name", "gold")
    assert changed["limits"] == {"requests_per_minute": 5, "concurrency": 4, "tokens_per_minute": 7}
    assert changed["own_limits"] == {"requests_per_minute": 5, "tokens_per_minute": 7}
    assert (await api("PATCH", one, {"status": "suspended"}))["limits"] == changed["limits"]
    gone = await api("PATCH", one, {"plan": None})
    assert (gone["plan"], gone["free_requests"], gone["limits"]) == (None, 0, changed["own_limits"])
    assert await _in_force(cold, opened, account) == {"policy": "{}", "rpm": "5", "tpm": "7"}
    again = await api(
        "PATCH", one, {"plan": "gold", "limits": {"requests_per_minute": None, "tokens_per_minute": None}}
    )
    assert (again["limits"], again["own_limits"]) == (GOLD["limits"], {})


async def test_an_account_of_before_there_were_plans(api: Api, cold: ColdBook, opened: Link) -> None:
    account = await api.account(limits={"concurrency": 3})
    fields = ("own_limits", "plan_limits", "plan_version", "free_requests")
    await cold.accounts.update_one({"_id": account}, {"$unset": dict.fromkeys(fields, "")})
    assert (await api("GET", f"/accounts/{account}"))["own_limits"] == {"concurrency": 3}
    await api("PATCH", f"/accounts/{account}", {"limits": {"tokens_per_minute": 7}})
    assert await _in_force(cold, opened, account) == {"policy": "{}", "tpm": "7", "conc": "3"}
    await api("PUT", "/plans/gold", GOLD, status=201)
    joined = await api("PATCH", f"/accounts/{account}", {"plan": "gold"})
    assert joined["limits"] == {"requests_per_minute": 60, "concurrency": 3, "tokens_per_minute": 7}


async def test_a_change_is_in_force_for_all_when_it_is_answered(api: Api, cold: ColdBook, opened: Link) -> None:
    for name in ("gold", "other"):
        await api("PUT", f"/plans/{name}", GOLD, status=201)
    members = [await api.account(plan="gold", limits={"tokens_per_minute": n + 1}) for n in range(5)]
    stranger = await api.account(plan="other")
    before = await _in_force(cold, opened, stranger)
    await api("PUT", "/plans/gold", {"free_requests": 1, "limits": {"concurrency": 2, "tokens_per_minute": 99}})
    for n, account in enumerate(members):
        assert await _in_force(cold, opened, account) == {
            "policy": PLAIN, "free": "1", "tpm": str(n + 1), "conc": "2",
        }  # fmt: skip
        assert (await _kept(cold, account))["version"] == 2
    assert await _in_force(cold, opened, stranger) == before
    plan = await cold.plans.find_one({"_id": "gold"})
    assert plan is not None
    assert (plan["version"], plan["dirty"]) == (2, False)


async def test_the_next_admit_goes_by_the_new_plan(api: Api, cold: ColdBook, opened: Link) -> None:
    await api("PUT", "/plans/p", {"free_requests": 1}, status=201)
    account = await api.account(plan="p")
    key = await api("POST", f"/accounts/{account}/api-keys", {"name": "k"}, status=201)
    partition = str((await _kept(cold, account))["partition"])
    config = int((await hashed(opened, keyspace.meta(partition)))["config"])
    place = Place(partition, account, key["id"], key["line"])

    async def admit(rid: str, version: int) -> Admitted | Refused:
        return await hot.admit(opened, place, rid, Versions(1, version, config), Offer([10], 1))

    first = await admit("r1", 1)
    assert isinstance(first, Admitted)
    assert first.free
    assert await admit("r2", 1) == Refused("FUNDS", ("10", "0"))
    await api("PUT", "/plans/p", {"free_requests": 2, "limits": {"concurrency": 2}})
    assert await admit("r2", 1) == Refused("STALE", ())
    second = await admit("r2", 2)
    assert isinstance(second, Admitted)
    assert second.free
    assert await admit("r3", 2) == Refused("CONCURRENCY", ("account", "2"))


async def test_without_redis_a_plan_is_pending_and_then_true(
    api: Api, cut_off: Api, cold: ColdBook, opened: Link
) -> None:
    await api("PUT", "/plans/p", GOLD, status=201)
    accounts = [await api.account(plan="p") for _ in range(3)]
    refused = await cut_off("PUT", "/plans/p", {"free_requests": 7}, status=503)
    assert (refused["code"], refused["id"]) == ("pending", "p")
    assert await cold.accounts.count_documents({"dirty": True, "free_requests": 7}) == 3
    assert (await api("GET", "/plans/p"))["free_requests"] == 7
    assert await publish.complete_pending(cold, opened) == 1
    for account in accounts:
        assert (await _in_force(cold, opened, account))["free"] == "7"
    assert await publish.complete_pending(cold, opened) == 0
    await cut_off("PUT", "/plans/p", {"free_requests": 8}, status=503)
    assert (await api("PUT", "/plans/p", {"free_requests": 8}))["version"] == 4  # the same request again finishes it
    assert await publish.complete_pending(cold, opened) == 0


async def test_a_plan_written_and_not_spread_is_finished_by_the_worker(api: Api, cold: ColdBook, opened: Link) -> None:
    """As after a crash of the admin API between its two writes."""
    await api("PUT", "/plans/p", GOLD, status=201)
    account = await api.account(plan="p")
    fields = {"retention_days": 1, "free_requests": 5, "limits": {}, "markup_ppm": 10**6, "on_abandoned": "release"}
    await plans.put(cold, "p", fields)
    assert await publish.complete_pending(cold, opened) == 1
    assert (await _in_force(cold, opened, account))["free"] == "5"


@pytest.mark.parametrize("by", ["the worker", "a repeat", "a grant"])
async def test_an_account_written_beside_a_change_of_its_plan(api: Api, cold: ColdBook, opened: Link, by: str) -> None:
    """It was merged with the plan of before, and whoever puts it in force finds that out."""
    await api("PUT", "/plans/p", GOLD, status=201)
    old = await cold.plans.find_one({"_id": "p"})
    account = await api.account(limits={"concurrency": 3})
    await api("PUT", "/plans/p", {"free_requests": 9})
    await cold.accounts.update_one({"_id": account}, plans.change(plans.inherited(old), own_limits={}))
    assert (await _kept(cold, account))["free_requests"] == 2
    if by == "the worker":
        assert await publish.complete_pending(cold, opened) == 1
    elif by == "a repeat":
        assert (await api("PATCH", f"/accounts/{account}", {"name": "b"}))["free_requests"] == 9
    else:
        grant = {"amount_usd": "1", "kind": "bonus"}
        await api("POST", f"/accounts/{account}/grants", grant, idem="g", status=201)
    assert await _in_force(cold, opened, account) == {"policy": PLAIN, "free": "9", "conc": "3"}


async def test_changes_at_once_end_in_one_plan_for_all(api: Api, cold: ColdBook, opened: Link) -> None:
    await api("PUT", "/plans/p", {"free_requests": 1}, status=201)
    accounts = [await api.account() for _ in range(6)]
    await asyncio.gather(
        *(api("PUT", "/plans/p", {"free_requests": n}) for n in (11, 12, 13)),
        *(api("PATCH", f"/accounts/{account}", {"plan": "p"}) for account in accounts),
    )
    free = str((await api("GET", "/plans/p"))["free_requests"])
    for account in accounts:
        assert (await _in_force(cold, opened, account))["free"] == free
    plan = await cold.plans.find_one({"_id": "p"})
    assert plan is not None
    assert not plan["dirty"]
