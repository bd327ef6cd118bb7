"""Money out: a refund or a correction down through the admin API, its event, and what a fault in between leaves."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from ledger import balances, debits, keyspace
from ledger.audit import audit
from ledger.balances import Balance
from ledger.cold import ColdBook, Document
from ledger.connections import client
from ledger.consumer import Consumer
from ledger.link import Link
from ledger.vault import Vault
from tests.integration.admin import Api, serving
from weir.bundled import free_port

OUT = {"amount_usd": "-4", "kind": "refund", "reference": "payout 1"}


@pytest.fixture
async def api(cold: ColdBook, opened: Link, vault: Vault) -> AsyncIterator[Api]:
    async with serving(cold, opened, vault) as served:
        yield served


@pytest.fixture
async def cut_off(cold: ColdBook, vault: Vault) -> AsyncIterator[Api]:
    async with (
        Link(f"redis://127.0.0.1:{free_port()}", deadline_s=0.5) as nowhere,
        serving(cold, nowhere, vault) as served,
    ):
        yield served


@pytest.fixture
async def reader(redis_url: str) -> AsyncIterator[Redis]:
    made = client(redis_url)
    yield made
    await made.aclose()


@pytest.fixture
async def path(api: Api) -> str:
    """An account with $10."""
    path = f"/accounts/{await api.account()}/grants"
    await api("POST", path, {"amount_usd": "10", "kind": "top_up"}, idem="in", status=201)
    return path


async def move(cold: ColdBook, redis: Link, reader: Redis) -> None:
    moving = Consumer(cold, redis, reader)
    while await moving.step():
        pass


async def balance(api: Api, path: str) -> tuple[str, str, str]:
    found = (await api("GET", path.removesuffix("/grants")))["balance"]
    return found["credited_usd"], found["spent_usd"], found["available_usd"]


async def request(cold: ColdBook) -> Document:
    found = await cold.debit_requests.find_one()
    assert found is not None
    return found


async def test_money_out_once(api: Api, path: str, cold: ColdBook, opened: Link, reader: Redis) -> None:
    first = await api("POST", path, OUT, idem="out", status=201)
    assert (first["amount_usd"], first["amount_nanos"], first["kind"]) == ("-4.00", -4 * 10**9, "refund")
    assert (first["status"], first["number"], first["reference"]) == ("applied", 2, "payout 1")
    assert await api("POST", path, OUT, idem="out") == first
    code = (await api("POST", path, {**OUT, "amount_usd": "-5"}, idem="out", status=422))["code"]
    assert code == "idempotency_key_reused"
    assert await balance(api, path) == ("10.00", "4.00", "6.00")
    await api("POST", path, {"amount_usd": "1", "kind": "bonus"}, idem="in2", status=201)
    listed = await api("GET", path)
    assert [(i["number"], i["amount_usd"]) for i in listed["items"]] == [(1, "10.00"), (2, "-4.00"), (3, "1.00")]
    one = await api("GET", path, limit=1)
    two = await api("GET", path, limit=2, cursor=one["next_cursor"])
    assert ([i["number"] for i in two["items"]], two["next_cursor"]) == ([2, 3], None)
    await move(cold, opened, reader)
    debit = await cold.debits.find_one()
    assert debit is not None
    assert (debit["_id"], debit["charge_nanos"], debit["kind"], debit["seq"]) == (first["id"], 4 * 10**9, "refund", 1)
    assert await cold.usage.count_documents({}) == 0
    assert await debits.complete(cold, opened) == 1
    assert (await request(cold))["booked"]
    report = await audit(cold, opened)
    assert (report.agrees, report.debits, report.spent_nanos) == (True, 1, 4 * 10**9)
    assert await api("POST", path, OUT, idem="out") == first  # still, once it is booked


async def test_what_is_not_covered_is_refused_for_good(api: Api, path: str, cold: ColdBook, opened: Link) -> None:
    too_much = {"amount_usd": "-10.000000001", "kind": "correction"}
    refused = await api("POST", path, too_much, idem="out", status=409)
    assert (refused["code"], refused["needed_usd"], refused["available_usd"]) == (
        "insufficient_balance", "10.000000001", "10.00",
    )  # fmt: skip
    await api("POST", path, {"amount_usd": "10", "kind": "bonus"}, idem="more", status=201)
    assert await api("POST", path, too_much, idem="out", status=409) == refused
    assert await debits.complete(cold, opened) == 0
    assert await balance(api, path) == ("20.00", "0.00", "20.00")
    assert [item["number"] for item in (await api("GET", path))["items"]] == [1, 3]


async def test_parallel_payouts_never_overdraw(api: Api, path: str) -> None:
    async def out(n: int) -> int:
        response = await api.http.post(
            f"/v1{path}", json={**OUT, "amount_usd": "-1"}, headers={"idempotency-key": f"o{n}"}
        )
        return response.status_code

    answers = await asyncio.gather(*(out(n) for n in range(20)))
    assert sorted(answers) == [201] * 10 + [409] * 10
    assert await balance(api, path) == ("10.00", "10.00", "0.00")


async def test_without_redis_it_is_pending_and_then_done(
    api: Api, cut_off: Api, path: str, cold: ColdBook, opened: Link
) -> None:
    pending = await cut_off("POST", path, OUT, idem="out", status=202)
    assert pending["status"] == "pending"
    assert (await cut_off("GET", path))["items"][1]["status"] == "pending"
    await debits.complete(cold, opened)
    assert (await api("GET", path))["items"][1]["status"] == "applied"
    assert (await api("POST", path, OUT, idem="out"))["status"] == "applied"
    assert await balance(api, path) == ("10.00", "4.00", "6.00")


async def test_a_payout_whose_mark_has_expired_is_not_paid_again(
    api: Api, path: str, cold: ColdBook, opened: Link, reader: Redis
) -> None:
    """The API died before it noted the answer, and the worker was away for more than an hour."""
    debit_id = (await api("POST", path, OUT, idem="out", status=201))["id"]
    document = await cold.accounts.find_one({})
    assert document is not None
    partition = document["partition"]
    old = {"status": "pending", "asked_us": 1}
    await cold.debit_requests.update_one({"_id": debit_id}, {"$set": old})
    await opened.command("DEL", keyspace.hold(partition, debit_id))
    await debits.complete(cold, opened)  # its event still waits in the stream: nobody can be sure
    assert (await request(cold))["status"] == "pending"
    assert await balance(api, path) == ("10.00", "4.00", "6.00")
    await move(cold, opened, reader)
    assert await debits.complete(cold, opened) == 1
    assert (await request(cold))["status"] == "applied"
    assert await balance(api, path) == ("10.00", "4.00", "6.00")


async def test_a_payout_that_was_lost_with_a_tail_is_posted_again(
    api: Api, path: str, cold: ColdBook, opened: Link, reader: Redis
) -> None:
    """It was answered with 201; then the server lost it, as after a failover."""
    debit_id = (await api("POST", path, OUT, idem="out", status=201))["id"]
    document = await cold.accounts.find_one({})
    assert document is not None
    partition, account = document["partition"], document["_id"]
    await opened.command("DEL", keyspace.hold(partition, debit_id))
    await opened.command("DEL", keyspace.usage(partition))
    await opened.command("HSET", keyspace.meta(partition), "seq", 0)
    whole = Balance(available_nanos=10 * 10**9).record()
    await opened.command("HSET", keyspace.account(partition, account), "spent", 0, balances.FIELD, whole)
    await debits.complete(cold, opened)
    await move(cold, opened, reader)
    assert await debits.complete(cold, opened) == 1
    assert await balance(api, path) == ("10.00", "4.00", "6.00")
    assert (await audit(cold, opened)).agrees
