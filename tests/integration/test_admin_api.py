"""Accounts, grants and API keys through the admin API, on a real mongod and Valkey."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from admin_api.auth import MAX_BODY_BYTES
from ledger import catalogue, hot, keys, keyspace
from ledger.cold import ColdBook
from ledger.hot import Admitted, Offer, Place, Refused, Versions
from ledger.link import Link
from ledger.vault import Vault
from tests.integration.admin import Api, assert_problem, hashed, serving


@pytest.fixture
async def api(cold: ColdBook, opened: Link, vault: Vault) -> AsyncIterator[Api]:
    async with serving(cold, opened, vault) as served:
        yield served


async def _partition(cold: ColdBook, account: str) -> str:
    document = await cold.accounts.find_one({"_id": account})
    assert document is not None
    return str(document["partition"])


# The door


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", "Basic owner-token-of-the-tests", "Bearer caf\xe9"])
async def test_strangers_learn_nothing(api: Api, given: str) -> None:
    response = await api.http.post(
        "/v1/accounts", content=b"not json", headers={b"authorization": given.encode("latin-1")}
    )
    assert response.status_code == 401
    assert_problem(response)
    assert response.headers["www-authenticate"] == "Bearer"


async def test_the_host_header_opens_no_door(api: Api) -> None:
    for host in ("x/healthz?", "x/docs#", "/healthz"):
        response = await api.http.get("/v1/accounts", headers={"authorization": "", "host": host})
        assert response.status_code == 401


async def test_health_needs_no_token(api: Api) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs"):
        assert (await api.http.get(path, headers={"authorization": ""})).status_code == 200


async def test_a_body_has_a_bound(api: Api) -> None:
    response = await api.http.post("/v1/accounts", content=b" " * (MAX_BODY_BYTES + 1))
    assert response.status_code == 413
    assert_problem(response)


async def test_every_error_is_a_problem(api: Api) -> None:
    assert (await api("GET", "/nothing", status=404))["code"] == "unknown_path"
    assert (await api("PUT", "/accounts", status=405))["code"] == "method_not_allowed"
    response = await api.http.post("/v1/accounts", content=b"{", headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert_problem(response)


async def test_a_validation_error_does_not_echo(api: Api) -> None:
    canary = "canary-8151"
    bodies: list[tuple[str, Any]] = [
        ("/accounts", {"name": "a", "email": canary}),
        ("/accounts", {"name": {"x": canary}}),
        ("/accounts", {"name": "a", "limits": {"concurrency": canary}}),
        ("/accounts", [canary]),
        ("/upstreams", {"name": canary, "base_url": canary, "provider": canary, "credential": [canary]}),
    ]
    for path, body in bodies:
        answer = await api("POST", path, body, status=422)
        assert canary not in str(answer)
        assert answer["errors"]


async def test_answers_are_not_cached(api: Api) -> None:
    assert (await api.http.get("/v1/accounts")).headers["cache-control"] == "no-store"


# Accounts


async def test_an_account_begins_empty_and_in_force(api: Api, cold: ColdBook, opened: Link) -> None:
    made = await api(
        "POST", "/accounts", {"name": "Acme", "email": "a@b.example", "limits": {"concurrency": 3}}, status=201
    )
    assert made["status"] == "active"
    assert made["limits"] == {"concurrency": 3}
    assert made["balance"]["available_nanos"] == 0
    assert made["balance"]["available_usd"] == "0.00"
    assert await api("GET", f"/accounts/{made['id']}") == made
    document = await cold.accounts.find_one({"_id": made["id"]})
    assert document is not None
    assert (document["dirty"], document["version"]) == (False, 1)
    stored = await hashed(opened, keyspace.account(document["partition"], made["id"]))
    assert (stored["ver"], stored["status"], stored["conc"]) == ("1", "active", "3")


async def test_accounts_refuse_what_they_do_not_know(api: Api) -> None:
    for body in ({}, {"name": ""}, {"name": "a", "nope": 1}, {"name": "a", "limits": {"requests": 1}},
                 {"name": "a", "limits": {"concurrency": 0}}, {"name": "a", "plan": "gold"}):  # fmt: skip
        await api("POST", "/accounts", body, status=422)
    await api("GET", "/accounts/acct_nobody", status=404)
    await api("PATCH", "/accounts/acct_nobody", {"name": "x"}, status=404)
    await api("DELETE", "/accounts/acct_nobody", status=404)


async def test_accounts_are_paged(api: Api) -> None:
    made = {await api.account() for _ in range(5)}
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        answer = await api("GET", "/accounts", limit=2, **cursor)
        seen += [item["id"] for item in answer["items"]]
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}
    assert seen == sorted(made)
    await api("GET", "/accounts", cursor="!", status=422)
    await api("GET", "/accounts", cursor="eyJhIjoxfQ==", status=422)
    await api("GET", "/accounts", limit=0, status=422)


async def test_a_change_is_in_force_when_it_is_answered(api: Api, cold: ColdBook, opened: Link) -> None:
    account = await api.account(limits={"concurrency": 3, "requests_per_minute": 60})
    key = keyspace.account(await _partition(cold, account), account)
    changed = await api("PATCH", f"/accounts/{account}", {"limits": {"concurrency": None, "tokens_per_minute": 9}})
    assert changed["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 9}
    stored = await hashed(opened, key)
    assert (stored["ver"], stored["rpm"], stored["tpm"], "conc" in stored) == ("2", "60", "9", False)
    assert (await api("PATCH", f"/accounts/{account}", {"status": "suspended"}))["status"] == "suspended"
    assert (await hashed(opened, key))["status"] == "suspended"
    await api("PATCH", f"/accounts/{account}", {"status": "closed"}, status=422)
    await api("PATCH", f"/accounts/{account}", {"name": None}, status=422)


async def test_changes_at_once_all_count(api: Api, cold: ColdBook, opened: Link) -> None:
    account = await api.account()
    await asyncio.gather(*(api("PATCH", f"/accounts/{account}", {"name": f"n{n}"}) for n in range(10)))
    document = await cold.accounts.find_one({"_id": account})
    assert document is not None
    assert (document["version"], document["dirty"]) == (11, False)
    assert (await hashed(opened, keyspace.account(document["partition"], account)))["ver"] == "11"


async def test_closing_waits_for_holds_and_is_for_good(api: Api, cold: ColdBook, opened: Link) -> None:
    account = await api.account()
    await api("POST", f"/accounts/{account}/grants", {"amount_usd": "1", "kind": "top_up"}, idem="g", status=201)
    key = await api("POST", f"/accounts/{account}/api-keys", {"name": "k"}, status=201)
    partition = await _partition(cold, account)
    config = int((await hashed(opened, keyspace.meta(partition)))["config"])
    place = Place(partition, account, key["id"], key["line"])
    held = await hot.admit(opened, place, "a" * 32, Versions(1, 1, config), Offer([10**9], 1))
    assert isinstance(held, Admitted)
    assert (await api("GET", f"/accounts/{account}"))["balance"]["held_usd"] == "1.00"
    assert (await api("DELETE", f"/accounts/{account}", status=409))["code"] == "holds_live"
    await hot.settling(opened, place, "a" * 32, cost_nanos=0, event=b"{}", admitted_us=held.at_us, void=True)
    assert (await api("DELETE", f"/accounts/{account}"))["status"] == "closed"
    assert (await api("DELETE", f"/accounts/{account}"))["status"] == "closed"
    late = await hot.admit(opened, place, "b" * 32, Versions(1, 2, config), Offer([1], 1))
    assert late == Refused("SUSPENDED", ("closed",))
    for method, path, body in (
        ("PATCH", "", {"status": "active"}),
        ("POST", "/api-keys", {"name": "k"}),
        ("POST", f"/api-keys/{key['id']}/rotate", {"grace_seconds": 0}),
        ("POST", "/grants", {"amount_usd": "1", "kind": "top_up"}),
    ):
        refused = await api(method, f"/accounts/{account}{path}", body, idem="late", status=409)
        assert refused["code"] == "account_closed"


async def test_a_replayed_create_makes_nothing_new(api: Api) -> None:
    body = {"name": "Acme", "limits": {"concurrency": 2}}
    first = await api("POST", "/accounts", body, idem="one", status=201)
    assert await api("POST", "/accounts", body, idem="one") == first
    other = await api("POST", "/accounts", {**body, "name": "Other"}, idem="one", status=422)
    assert other["code"] == "idempotency_key_reused"
    assert len((await api("GET", "/accounts"))["items"]) == 1


# Grants


async def test_a_grant_is_booked_once(api: Api, cold: ColdBook) -> None:
    account = await api.account()
    path, body = f"/accounts/{account}/grants", {"amount_usd": "12.50", "kind": "top_up", "reference": "inv-1"}
    first = await api("POST", path, body, idem="k-1", status=201)
    assert (first["amount_nanos"], first["amount_usd"]) == (12_500_000_000, "12.50")
    assert (first["number"], first["status"], first["reference"]) == (1, "applied", "inv-1")
    assert await api("POST", path, {**body, "amount_usd": 12.5}, idem="k-1") == first
    assert (await api("POST", path, {**body, "kind": "bonus"}, idem="k-1", status=422))[
        "code"
    ] == "idempotency_key_reused"
    await api("POST", path, {"amount_usd": 0.000000001, "kind": "bonus"}, idem="k-2", status=201)
    balance = (await api("GET", f"/accounts/{account}"))["balance"]
    assert (balance["credited_usd"], balance["available_nanos"]) == ("12.500000001", 12_500_000_001)
    listed = await api("GET", path, limit=1)
    assert listed["items"] == [first]
    assert [g["number"] for g in (await api("GET", path, cursor=listed["next_cursor"]))["items"]] == [2]
    document = await cold.accounts.find_one({"_id": account})
    assert document is not None
    assert (document["credited_nanos"], document["grant_number"], document["dirty"]) == (12_500_000_001, 2, False)


async def test_one_key_in_many_requests_is_one_grant(api: Api, cold: ColdBook) -> None:
    account = await api.account()
    path, body = f"/v1/accounts/{account}/grants", {"amount_usd": "5", "kind": "top_up"}
    posts = [api.http.post(path, json=body, headers={"idempotency-key": "same"}) for _ in range(30)]
    answers = await asyncio.gather(*posts)
    codes = [answer.status_code for answer in answers]
    assert codes.count(201) == 1
    assert set(codes) <= {200, 201, 409}
    assert {a.json()["code"] for a in answers if a.status_code == 409} <= {"in_flight"}
    assert await cold.grants.count_documents({"account": account}) == 1
    assert (await api("GET", f"/accounts/{account}"))["balance"]["credited_usd"] == "5.00"


async def test_grants_with_keys_of_their_own_all_count(api: Api, cold: ColdBook) -> None:
    account = await api.account()
    path, body = f"/accounts/{account}/grants", {"amount_usd": "0.1", "kind": "top_up"}
    made = await asyncio.gather(*(api("POST", path, body, idem=f"k{n}", status=201) for n in range(20)))
    assert sorted(grant["number"] for grant in made) == list(range(1, 21))
    assert (await api("GET", f"/accounts/{account}"))["balance"]["credited_usd"] == "2.00"


async def test_grants_refuse(api: Api) -> None:
    account = await api.account()
    path = f"/accounts/{account}/grants"
    good = {"amount_usd": "1", "kind": "top_up"}
    assert (await api("POST", path, good, status=400))["code"] == "idempotency_key_required"
    for change in ({"amount_usd": "-1", "kind": "bonus"}, {"amount_usd": "0"}, {"amount_usd": "0.0000000001"},
                   {"amount_usd": "NaN"}, {"amount_usd": True}, {"amount_usd": "9007199.254740992"},
                   {"kind": "gift"}, {"more": 1}, {"amount_usd": "1e400"}):  # fmt: skip
        await api("POST", path, {**good, **change}, idem="k", status=422)
    money_out = await api("POST", path, {**good, "amount_usd": "-1"}, idem="k", status=422)
    assert "negative only for refund and correction" in money_out["detail"]
    await api("POST", "/accounts/acct_nobody/grants", good, idem="k", status=404)
    await api("GET", "/accounts/acct_nobody/grants", status=404)


async def test_a_balance_stays_countable(api: Api) -> None:
    account = await api.account()
    path = f"/accounts/{account}/grants"
    most = await api("POST", path, {"amount_usd": "9007199.254740991", "kind": "top_up"}, idem="a", status=201)
    assert most["status"] == "applied"
    await api("POST", path, {"amount_usd": "0.000000001", "kind": "top_up"}, idem="b", status=422)
    assert len((await api("GET", path))["items"]) == 1


# API keys


async def test_a_key_is_shown_once_and_kept_as_a_digest(api: Api, cold: ColdBook, opened: Link, vault: Vault) -> None:
    account = await api.account()
    path, body = f"/accounts/{account}/api-keys", {"name": "k", "models": ["gpt-x"], "daily_cap_usd": "1.5"}
    made = await api("POST", path, body, idem="once", status=201)
    secret = made.pop("key")
    parsed = keys.parse(secret.encode())
    assert parsed is not None
    assert (parsed.partition, parsed.id) == (await _partition(cold, account), made["id"])
    assert await api("POST", path, body, idem="once") == {**made, "key": None}
    assert await api("GET", f"{path}/{made['id']}") == made
    assert (await api("GET", path))["items"] == [made]
    stored = await hashed(opened, keyspace.api_key(parsed.partition, parsed.id))
    text = await opened.command("GET", keyspace.config(await _config(opened, parsed.partition)))
    sealed = catalogue.decode(text).peppers[stored["pepper"]]
    pepper = vault.open(sealed, purpose=catalogue.pepper_purpose(stored["pepper"]))
    assert stored["digest"] == keys.digest(pepper, secret.encode())
    assert (stored["dcap"], stored["status"], stored["line"]) == ("1500000000", "active", made["id"])


async def _config(redis: Link, partition: str) -> int:
    return int((await hashed(redis, keyspace.meta(partition)))["config"])


async def test_a_key_changes_and_is_revoked_at_once(api: Api, cold: ColdBook, opened: Link) -> None:
    account = await api.account()
    path = f"/accounts/{account}/api-keys"
    body = {
        "name": "k",
        "models": ["a"],
        "networks": ["10.0.0.0/8"],
        "concurrency": 2,
        "expires_at": "2099-01-01T00:00:00Z",
    }
    made = await api("POST", path, body, status=201)
    assert made["expires_at"] == "2099-01-01T00:00:00.000Z"
    one = f"{path}/{made['id']}"
    changed = await api("PATCH", one, {"models": None, "concurrency": None, "monthly_cap_usd": "3", "expires_at": None})
    assert (changed["models"], changed["networks"], changed["concurrency"]) == ([], ["10.0.0.0/8"], None)
    assert (changed["monthly_cap_nanos"], changed["expires_at"]) == (3_000_000_000, None)
    redis_key = keyspace.api_key(await _partition(cold, account), made["id"])
    stored = await hashed(opened, redis_key)
    assert (stored["ver"], stored["mcap"], "conc" in stored, "exp" in stored) == ("2", "3000000000", False, False)
    for _ in range(2):
        assert (await api("DELETE", one))["status"] == "revoked"
        stored = await hashed(opened, redis_key)
        assert (stored["ver"], stored["status"]) == ("3", "revoked")


async def test_rotation_keeps_the_line(api: Api, cold: ColdBook, opened: Link) -> None:
    account = await api.account()
    path = f"/accounts/{account}/api-keys"
    old = await api("POST", path, {"name": "k", "models": ["a"], "daily_cap_usd": "2"}, status=201)
    body = {"grace_seconds": 3600}
    new = await api("POST", f"{path}/{old['id']}/rotate", body, idem="r", status=201)
    assert new["key"] not in (None, old["key"])
    assert (new["line"], new["models"], new["daily_cap_usd"]) == (old["line"], ["a"], "2.00")
    replay = await api("POST", f"{path}/{old['id']}/rotate", body, idem="r")
    assert (replay["id"], replay["key"]) == (new["id"], None)
    ended = await api("GET", f"{path}/{old['id']}")
    assert (ended["status"], ended["rotated_to"]) == ("active", new["id"])
    assert ended["expires_at"] is not None
    stored = await hashed(opened, keyspace.api_key(await _partition(cold, account), old["id"]))
    assert (stored["ver"], stored["status"], "exp" in stored) == ("2", "active", True)
    assert (await api("POST", f"{path}/{old['id']}/rotate", body, status=409))["code"] == "key_ended"
    newest = await api("POST", f"{path}/{new['id']}/rotate", {"grace_seconds": 0}, status=201)
    assert newest["line"] == old["line"]
    assert (await api("GET", f"{path}/{new['id']}"))["status"] == "revoked"


async def test_one_of_many_rotations_wins(api: Api) -> None:
    account = await api.account()
    path = f"/v1/accounts/{account}/api-keys"
    old = (await api.http.post(path, json={"name": "k"})).json()
    posts = [api.http.post(f"{path}/{old['id']}/rotate", json={"grace_seconds": 60}) for _ in range(8)]
    codes = sorted(response.status_code for response in await asyncio.gather(*posts))
    assert codes == [201] + [409] * 7
    assert len((await api("GET", f"/accounts/{account}/api-keys"))["items"]) == 2


async def test_keys_refuse(api: Api) -> None:
    account, stranger = await api.account(), await api.account()
    path = f"/accounts/{account}/api-keys"
    refused: list[dict[str, Any]] = [
        *({"name": ""}, {"networks": ["10.0.0.1/8"]}, {"models": [""]}, {"daily_cap_usd": "-1"}),
        *({"expires_at": "2001-01-01T00:00:00Z"}, {"expires_at": "2099-01-01T00:00:00"}, {"concurrency": -1}, {"x": 1}),
    ]
    for change in refused:
        await api("POST", path, {"name": "k", **change}, status=422)
    made = await api("POST", path, {"name": "k"}, status=201)
    for elsewhere in (f"{path}/none", f"/accounts/{stranger}/api-keys/{made['id']}"):
        await api("GET", elsewhere, status=404)
        await api("PATCH", elsewhere, {"name": "x"}, status=404)
        await api("DELETE", elsewhere, status=404)
        await api("POST", f"{elsewhere}/rotate", {"grace_seconds": 0}, status=404)
    await api("POST", f"{path}/{made['id']}/rotate", {}, status=422)
    await api("GET", "/accounts/acct_nobody/api-keys", status=404)
