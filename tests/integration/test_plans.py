"""Plans at work: free requests through the gateway, in the events, after a rebuild; and how long usage is kept."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest

from bench.provider import Behaviour, ScriptedProvider
from ledger import hot, keyspace, publish, reopen, statements
from ledger.cold import now
from ledger.hot import Admitted
from ledger.vault import Vault
from tests.integration.admin import serving
from tests.integration.ledger_books import PLACE, Ledger, P
from tests.integration.test_main_job import expected_nanos
from tests.stack import Customer, Stack, http

ASK = [{"role": "user", "content": "Hello"}]


async def on_plan(stack: Stack, credit_usd: str, **plan: Any) -> Customer:
    """A customer on a plan of its own."""
    name = f"p-{uuid.uuid4().hex[:8]}"
    await stack.ask("PUT", f"/plans/{name}", plan)
    customer = await stack.customer(credit_usd)
    await stack.ask("PATCH", f"/accounts/{customer.id}", {"plan": name})
    return customer


async def post(stack: Stack, customer: Customer, model: str, **more: Any) -> Any:
    headers = {"authorization": f"Bearer {customer.key}", "content-type": "application/json"}
    body = json.dumps({"model": model, "messages": ASK, **more})
    async with http() as caller:
        return await caller.post(f"{stack.base_url}/chat/completions", content=body, headers=headers)


@pytest.mark.parametrize("streamed", [False, True])
async def test_free_first_and_then_charged(stack: Stack, streamed: bool) -> None:
    async with ScriptedProvider() as provider:
        model = await stack.model(provider.url, max_output_tokens=100_000)
        customer = await on_plan(stack, "10", free_requests=2, markup="2")
        for _ in range(3):
            answer = await post(stack, customer, model, stream=streamed)
            assert answer.status_code == 200, answer.text
            await stack.settled(customer.id)
        events = sorted(await stack.events(customer.id, 3), key=lambda event: event["seq"])
    usage = {name: events[0]["usage"][name] for name in ("input_uncached", "output")}
    charge = expected_nanos(2 * usage["input_uncached"], 2 * usage["output"])
    assert [(e["free"], e["charge_nanos"], e["end"]) for e in events] == [
        (True, 0, "settled"), (True, 0, "settled"), (False, charge, "settled"),
    ]  # fmt: skip
    assert [e["quote_nanos"] == 0 for e in events] == [True, True, False]
    assert {(e["shortfall_nanos"], e["outcome"]) for e in events} == {(0, "complete")}
    assert (await stack.balance(customer.id))["spent_nanos"] == charge
    assert stack.audit()["agrees"]


async def test_a_customer_without_money_is_served_what_is_free(stack: Stack) -> None:
    """For as much output as the least hold would have paid for; a request that failed upstream does not count."""
    async with ScriptedProvider() as provider, ScriptedProvider(Behaviour(status=500)) as broken:
        model = await stack.model(provider.url, max_output_tokens=100_000)
        failing = await stack.model(broken.url)
        customer = await on_plan(stack, "0", free_requests=1)
        assert (await post(stack, customer, failing)).status_code == 500
        [event] = await stack.events(customer.id, 1)
        assert (event["end"], event["free"], event["charge_nanos"]) == ("voided", True, 0)
        answer = await post(stack, customer, model)
        assert (answer.status_code, answer.headers["x-weir-output-cap"]) == (200, "4096")
        assert (await post(stack, customer, model)).status_code == 402


CREDITED = 10**6


@pytest.fixture
async def ledger(ledger: Ledger) -> Ledger:
    """The ledger's account `acc` has three free requests a month."""
    more = {"free_requests": 3, "version": 2, "name": "A", "email": None, "plan": None, "created_at": now()}
    await ledger.cold.accounts.update_one({"_id": "acc"}, {"$set": more})
    document = await ledger.cold.accounts.find_one({"_id": "acc"})
    assert document is not None
    await publish.account(ledger.link, document)
    return ledger


async def admit(ledger: Ledger, rid: str) -> Admitted:
    config = int(await ledger.link.command("HGET", keyspace.meta(P), "config"))
    offer = hot.Offer([10], 0, 0, ledger.facts())
    reply = await hot.admit(ledger.link, PLACE, rid, hot.Versions(1, 2, config), offer)
    assert isinstance(reply, Admitted), reply
    return reply


async def test_events_say_what_was_free_and_a_rebuild_counts_them(ledger: Ledger) -> None:
    for rid in ("abandoned", "late", "voided", "settled"):
        assert (await admit(ledger, rid)).free
        if rid == "settled":
            await ledger.settle(rid, 5, event=ledger.facts(free=True))
        elif rid == "voided":
            at_us = (await ledger.link.command("TIME"))[0]
            void: dict[str, Any] = {"cost_nanos": 0, "event": ledger.facts(), "admitted_us": int(at_us) * 10**6}
            await hot.settling(ledger.link, PLACE, rid, void=True, **void)
        else:
            await ledger.link.command("ZADD", keyspace.due(P), "XX", 1, rid)
            assert await hot.sweep(ledger.link, PLACE, rid) is not None
    assert (await ledger.settle("late", 5)).end == "late"
    assert not (await admit(ledger, "charged")).free
    await ledger.settle("charged", 5)
    await ledger.move()
    kept = {d["_id"]: (d["end"], d["free"], int(d["charge_nanos"])) for d in await ledger.kept()}
    assert kept == {
        "abandoned": ("abandoned", True, 0),
        "late": ("abandoned", True, 0),
        "late:late": ("late", True, 0),
        "voided": ("voided", True, 0),
        "settled": ("settled", True, 0),
        "charged": ("settled", False, 5),
    }
    account = keyspace.account(P, "acc")
    before = await ledger.link.command("HMGET", account, "fmonth", "fused", "free")
    await ledger.link.command("FLUSHALL")
    await reopen.reopen(ledger.cold, ledger.link, await reopen.closed_partitions(ledger.link), term=2)
    assert await ledger.link.command("HMGET", account, "fmonth", "fused", "free") == before
    assert [int(value) for value in before[1:]] == [3, 3]
    assert not (await admit(ledger, "after")).free


async def test_usage_is_kept_as_long_as_the_plan_says(ledger: Ledger, vault: Vault) -> None:
    async with serving(ledger.cold, ledger.link, vault) as api:
        await api("PUT", "/plans/short", {"retention_days": 7}, status=201)
        await api("PATCH", "/accounts/acc", {"plan": "short"})
        await api("PUT", "/plans/short", {"retention_days": 8})
    document = await ledger.cold.accounts.find_one({"_id": "acc"})
    assert document is not None
    config = int(await ledger.link.command("HGET", keyspace.meta(P), "config"))
    versions = hot.Versions(1, document["version"], config)
    await hot.admit(ledger.link, PLACE, "r", versions, hot.Offer([10], 0, 0, ledger.facts()))
    await ledger.settle("r", 5)
    await ledger.move()
    at = now()
    yesterday = (at - timedelta(days=1)).strftime("%Y-%m-%d")
    await ledger.cold.usage.update_one({"_id": "r"}, {"$set": {"day": yesterday}})

    async def opened(_partition: str, _day: str) -> None:
        pass

    assert await statements.close_days(ledger.cold, ledger.link, now=at, partitions=[P], opened=opened) == [P]
    event = await ledger.cold.usage.find_one({"_id": "r"})
    assert event is not None
    assert event["purge_at"] == at + timedelta(days=8)
