"""When a store is away: nothing is lost, nothing is claimed that is not so, and nothing secret lies anywhere."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bson import encode

from ledger import keyspace, publish, reopen
from ledger.cold import ColdBook
from ledger.link import Link
from ledger.vault import Vault
from tests.conftest import valkey
from tests.integration.admin import PRICE, UPSTREAM, Api, hashed, serving
from weir.bundled import free_port


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


async def _dirty(cold: ColdBook) -> int:
    return await cold.accounts.count_documents({"dirty": True}) + await cold.api_keys.count_documents({"dirty": True})


async def test_without_redis_changes_are_pending_and_then_true(
    api: Api, cut_off: Api, cold: ColdBook, opened: Link
) -> None:
    account = await api.account()
    key = await api("POST", f"/accounts/{account}/api-keys", {"name": "k"}, status=201)
    upstream = await api("POST", "/upstreams", UPSTREAM, status=201)
    one = f"/accounts/{account}"
    grant = await cut_off("POST", f"{one}/grants", {"amount_usd": "3", "kind": "top_up"}, idem="g", status=202)
    assert grant["status"] == "pending"
    assert (await cut_off("GET", f"{one}/grants"))["items"][0]["status"] == "pending"
    model = {"upstreams": [{"upstream": "openai", "model": "m"}], "price": PRICE, "max_output_tokens": 1}
    changes: list[tuple[str, str, Any]] = [
        ("POST", "/accounts", {"name": "New"}),
        ("PATCH", one, {"limits": {"concurrency": 7}}),
        ("PATCH", f"{one}/api-keys/{key['id']}", {"concurrency": 5}),
        ("POST", f"{one}/api-keys", {"name": "lost"}),
        ("PATCH", f"/upstreams/{upstream['id']}", {"weight": 9}),
        ("PUT", "/models/m", model),
    ]
    for method, path, body in changes:
        refused = await cut_off(method, path, body, status=503)
        assert refused["code"] == "pending"
        assert refused["id"]
        assert "key" not in refused
    assert await _dirty(cold) == 4
    partition = key_partition = str((await cold.accounts.find_one({"_id": account}) or {})["partition"])
    assert "conc" not in await hashed(opened, keyspace.account(partition, account))

    assert await publish.complete_pending(cold, opened) == 5
    assert await _dirty(cold) == 0
    assert (await hashed(opened, keyspace.account(partition, account)))["conc"] == "7"
    assert (await hashed(opened, keyspace.api_key(key_partition, key["id"])))["conc"] == "5"
    assert (await api("GET", one))["balance"]["available_usd"] == "3.00"
    assert (await api("GET", f"{one}/grants"))["items"][0]["status"] == "applied"
    assert (await api("POST", f"{one}/grants", {"amount_usd": "3", "kind": "top_up"}, idem="g"))["status"] == "applied"
    assert len((await api("GET", "/accounts"))["items"]) == 2
    config = int((await hashed(opened, keyspace.meta("00")))["config"])
    assert b'"m"' in await opened.command("GET", keyspace.config(config))


async def test_a_repeat_puts_in_force_what_was_pending(api: Api, cut_off: Api, cold: ColdBook) -> None:
    account = await api.account()
    path, body = f"/accounts/{account}/grants", {"amount_usd": "3", "kind": "top_up"}
    assert (await cut_off("POST", path, body, idem="g", status=202))["status"] == "pending"
    assert (await cut_off("POST", path, body, idem="g", status=202))["status"] == "pending"
    assert (await api("POST", path, body, idem="g"))["status"] == "applied"
    made = await cut_off("POST", "/accounts", {"name": "b"}, idem="a", status=503)
    assert (await api("POST", "/accounts", {"name": "b"}, idem="a"))["id"] == made["id"]
    assert await _dirty(cold) == 0


async def test_a_grant_does_not_hide_a_pending_change(api: Api, cut_off: Api, cold: ColdBook, opened: Link) -> None:
    """Both are one account's `dirty`: putting the grant in force must take the suspension along."""
    account = await api.account()
    await cut_off("PATCH", f"/accounts/{account}", {"status": "suspended"}, status=503)
    await api("POST", f"/accounts/{account}/grants", {"amount_usd": "1", "kind": "bonus"}, idem="g", status=201)
    document = await cold.accounts.find_one({"_id": account})
    assert document is not None
    assert not document["dirty"]
    assert (await hashed(opened, keyspace.account(document["partition"], account)))["status"] == "suspended"


async def test_without_redis_what_only_it_knows_is_refused(api: Api, cut_off: Api) -> None:
    account = await api.account()
    for method, path in (("GET", "/accounts"), ("GET", f"/accounts/{account}"), ("DELETE", f"/accounts/{account}")):
        assert (await cut_off(method, path, status=503))["code"] == "temporarily_unavailable"
    assert (await api("GET", f"/accounts/{account}"))["status"] == "active"
    ready = await cut_off.http.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"redis": "away", "mongodb": "ok"})
    assert (await cut_off.http.get("/healthz")).status_code == 200
    assert (await cut_off("GET", f"/accounts/{account}/usage"))["items"] == []


async def test_an_unopened_redis_reads_as_away_and_not_as_zero(cold: ColdBook, redis: Link, vault: Vault) -> None:
    await publish.ensure_pepper(cold, vault)
    async with serving(cold, redis, vault) as api:
        made = await api("POST", "/accounts", {"name": "a"}, status=503)
        assert made["code"] == "pending"
        await api("GET", f"/accounts/{made['id']}", status=503)
        await reopen.reopen(cold, redis, await reopen.closed_partitions(redis), term=1)
        await publish.complete_pending(cold, redis)
        assert (await api("GET", f"/accounts/{made['id']}"))["status"] == "active"


async def test_a_redis_that_dies_and_returns(cold: ColdBook, vault: Vault, tmp_path: Path) -> None:
    await publish.ensure_pepper(cold, vault)
    with valkey(tmp_path / "v") as server:
        port = server.port
        async with Link(server.url, deadline_s=1) as link:
            await reopen.reopen(cold, link, await reopen.closed_partitions(link), term=1)
            async with serving(cold, link, vault) as api:
                account = await api.account()
    async with Link(f"redis://127.0.0.1:{port}", deadline_s=1) as link, serving(cold, link, vault) as api:
        grant = {"amount_usd": "2", "kind": "top_up"}
        await api("POST", f"/accounts/{account}/grants", grant, idem="g", status=202)
        with valkey(tmp_path / "v", port=port):
            async with asyncio.timeout(20):
                while (await api.http.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.02)
            await reopen.reopen(cold, link, await reopen.closed_partitions(link), term=2)
            await publish.complete_pending(cold, link)
            assert (await api("GET", f"/accounts/{account}"))["balance"]["credited_usd"] == "2.00"


async def test_without_mongodb_everything_says_so(redis: Link, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admin_api.stores.TRANSACTION_S", 0.5)
    nowhere = ColdBook(f"mongodb://127.0.0.1:{free_port()}/weir?replicaSet=weir", timeout_ms=200)
    async with serving(nowhere, redis, vault) as api:
        for method, path, body in (("GET", "/accounts", None), ("POST", "/accounts", {"name": "a"})):
            assert (await api(method, path, body, status=503))["code"] == "temporarily_unavailable"
        assert (await api.http.get("/readyz")).json() == {"redis": "ok", "mongodb": "away"}
    await nowhere.close()


async def test_no_secret_lies_anywhere(
    api: Api, cold: ColdBook, opened: Link, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    account = await api.account()
    key = await api("POST", f"/accounts/{account}/api-keys", {"name": "k"}, idem="i", status=201)
    new = await api(
        "POST", f"/accounts/{account}/api-keys/{key['id']}/rotate", {"grace_seconds": 9}, idem="r", status=201
    )
    await api("POST", "/upstreams", UPSTREAM, idem="u", status=201)
    await api("POST", "/upstreams", {**UPSTREAM, "name": "!"}, status=422)
    await api("POST", "/upstreams", UPSTREAM, status=409)
    secrets = [UPSTREAM["credential"].encode(), *(made["key"].split("_")[2].encode() for made in (key, new))]
    kept = [encode(d) async for name in _names(cold) async for d in cold.db[name].find()]
    kept += await _redis_dump(opened)
    out, err = capfd.readouterr()
    kept += [caplog.text.encode(), out.encode(), err.encode()]
    assert len(kept) > 256
    for secret in secrets:
        assert not [text for text in kept if secret in text]


async def test_a_bug_is_logged_without_its_message(
    api: Api, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("canary-3141")

    monkeypatch.setattr("admin_api.accounts.find", broken)
    assert (await api("GET", "/accounts/acct_x", status=500))["code"] == "internal_error"
    out, err = capfd.readouterr()
    assert "RuntimeError" in out + err
    assert "canary-3141" not in out + err


async def _names(cold: ColdBook) -> AsyncIterator[str]:
    for name in await cold.db.list_collection_names():
        yield name


async def _redis_dump(redis: Link) -> list[bytes]:
    """Every key and what it holds, by the type that it has."""
    read = {b"hash": ("HGETALL",), b"string": ("GET",), b"stream": ("XRANGE", "-", "+"), b"zset": ("ZRANGE", "0", "-1")}
    dump: list[bytes] = []
    for name in await redis.command("KEYS", "*"):
        command, *more = read[await redis.command("TYPE", name)]
        dump += [name, repr(await redis.command(command, name, *more)).encode()]
    return dump
