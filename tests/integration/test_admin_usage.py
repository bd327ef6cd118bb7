"""Usage through the admin API, from events as the ledger writes them."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from ledger import events, facts
from ledger.cold import ColdBook
from ledger.facts import Facts
from ledger.link import Link
from ledger.vault import Vault
from tests.entries import entry
from tests.integration.admin import Api, serving


@pytest.fixture
async def api(cold: ColdBook, opened: Link, vault: Vault) -> AsyncIterator[Api]:
    async with serving(cold, opened, vault) as served:
        yield served


async def _event(
    cold: ColdBook, account: str, rid: str, at: str, *, end: str = "settled", model: str = "a", charge: int = 5
) -> None:
    fact = Facts(
        account=account,
        api_key="key" + model,
        model=model,
        dialect="openai",
        endpoint="chat.completions",
        price_version=1,
        streamed=False,
        usage={"input_uncached": 3, "cache_read": 2, "output": 4},
    )
    at_us = int(datetime.fromisoformat(at).timestamp() * 1_000_000)
    made = entry(facts.encode(fact), rid=rid, end=end, charge=charge, short=1, hold=9, spent=5, at=at_us)
    await cold.usage.insert_one(events.document("00", made))


@pytest.fixture
async def account(api: Api, cold: ColdBook) -> str:
    account = await api.account()
    await _event(cold, account, "r1", "2026-01-01T10:00:00Z")
    await _event(cold, account, "r2", "2026-01-02T10:00:00Z", model="b", charge=1_500_000_000)
    await _event(cold, account, "r3", "2026-01-02T11:00:00Z", end="abandoned")
    await _event(cold, account, "r3", "2026-01-02T11:00:00Z", end="late", charge=7)
    await _event(cold, await api.account(), "r4", "2026-01-02T11:00:00Z")
    return account


async def test_events_are_listed_latest_first(api: Api, account: str) -> None:
    path = f"/accounts/{account}/usage"
    seen: list[tuple[str, str]] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await api("GET", path, limit=1, **cursor)
        seen += [(event["request_id"], event["end"]) for event in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [("r3", "late"), ("r3", "abandoned"), ("r2", "settled"), ("r1", "settled")]
    (event,) = (await api("GET", path, model="b"))["items"]
    assert (event["charge_nanos"], event["at"], event["account"]) == (
        1_500_000_000,
        "2026-01-02T10:00:00.000Z",
        account,
    )
    assert not {"_id", "digest", "day"} & event.keys()


async def test_events_by_time_and_key(api: Api, account: str) -> None:
    path = f"/accounts/{account}/usage"
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"from": "2026-01-02"}, ["r3", "r3", "r2"]),
        ({"to": "2026-01-02"}, ["r1"]),
        ({"from": "2026-01-02T12:00:00+02:00", "to": "2026-01-02T11:00:00Z"}, ["r2"]),
        ({"key": "keyb"}, ["r2"]),
        ({"key": "nobody"}, []),
    ]
    for query, expected in cases:
        assert [event["request_id"] for event in (await api("GET", path, **query))["items"]] == expected
    wrong: list[dict[str, Any]] = [{"from": "yesterday"}, {"to": "2026-01-01T10:00:00"}, {"cursor": "x"}]
    for query in wrong:
        await api("GET", path, status=422, **query)


async def test_sums(api: Api, account: str) -> None:
    path = f"/accounts/{account}/usage/summary"
    days = (await api("GET", path))["items"]
    assert [(d["day"], d["requests"], d["charge_nanos"]) for d in days] == [
        ("2026-01-01", 1, 5),
        ("2026-01-02", 2, 1_500_000_012),
    ]
    assert (days[0]["input_tokens"], days[0]["output_tokens"], days[0]["shortfall_nanos"]) == (5, 4, 1)
    models = await api("GET", path, by="model", limit=1)
    assert [(m["model"], m["requests"], m["charge_usd"]) for m in models["items"]] == [("a", 2, "0.000000017")]
    rest = await api("GET", path, by="model", cursor=models["next_cursor"])
    assert [(m["model"], m["charge_usd"]) for m in rest["items"]] == [("b", "1.50")]
    by_key: dict[str, Any] = {"by": "key", "from": "2026-01-02"}
    keys = (await api("GET", path, **by_key))["items"]
    assert [(k["key"], k["requests"]) for k in keys] == [("keya", 1), ("keyb", 1)]
    await api("GET", path, by="week", status=422)


async def test_all_events_of_a_request(api: Api, account: str) -> None:
    found = await api("GET", "/usage/r3")
    assert [event["end"] for event in found["events"]] == ["abandoned", "late"]
    assert (found["charge_nanos"], found["shortfall_nanos"], found["charge_usd"]) == (12, 2, "0.000000012")
    await api("GET", "/usage/r9", status=404)
    await api("GET", "/usage/r3:late", status=404)


async def test_of_nobody(api: Api) -> None:
    await api("GET", "/accounts/acct_nobody/usage", status=404)
    await api("GET", "/accounts/acct_nobody/usage/summary", status=404)
