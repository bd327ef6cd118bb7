"""The worker's parts on real stores: events moved once, holds swept, books reopened, the audit."""

from pathlib import Path
from typing import Any

import pytest

from ledger import audit, hot, keyspace, publish, reopen, sweeper
from ledger.cold import ColdBook
from ledger.connections import client
from ledger.hot import Fenced
from ledger.lines import InUse
from ledger.link import Link
from ledger.vault import Vault
from tests.conftest import valkey
from tests.hashes import plant
from tests.integration.ledger_books import PLACE, Ledger, P

META, ACCOUNT, USAGE, DUE = keyspace.meta(P), keyspace.account(P, "acc"), keyspace.usage(P), keyspace.due(P)


async def test_an_audit_beside_an_unreadable_event_still_reports(ledger: Ledger) -> None:
    await ledger.charge("r1")
    await ledger.reader.xadd(USAGE, {b"new": b"format"})
    report = await ledger.audit()
    assert (report.agrees, report.events_waiting) == (False, 1)


async def test_holds_whose_lease_ended_are_swept(ledger: Ledger) -> None:
    await ledger.admit("r1", lease_us=0)
    await ledger.admit("r2", lease_us=0)
    await ledger.admit("r3")
    await hot.progress(ledger.link, PLACE, "r2", used_nanos=4, lease_us=0)
    await ledger.link.command("ZADD", DUE, 1, "stray")
    assert await sweeper.sweep(ledger.link) == 2
    assert await ledger.balance() == {"avail": 986, "held": 10, "credited": 1000, "spent": 4, "live": 1}
    assert await ledger.link.command("ZRANGE", DUE, 0, -1) == [b"r3"]
    assert await sweeper.sweep(ledger.link) == 0
    await ledger.move()
    kept = [(d["_id"], d["end"], d["quote_nanos"]) for d in await ledger.kept()]
    assert kept == [("r1", "abandoned", 10), ("r2", "abandoned", 10)]
    assert (await ledger.audit()).agrees


async def test_after_a_restart_everything_is_as_it_was(cold: ColdBook, vault: Vault, tmp_path: Path) -> None:
    await publish.ensure_pepper(cold, vault)
    with valkey(tmp_path / "v") as server:
        port = server.port
        reader = client(server.url)
        async with Link(server.url) as link:
            ledger = Ledger(cold, link, reader)
            await ledger.reopen()
            await ledger.customer()
            await ledger.charge("r1", "r2")
            await ledger.move()
            await ledger.charge("r3")
            await ledger.admit("r4")
            before = await ledger.balance()
    with valkey(tmp_path / "v", port=port) as server:
        await reader.aclose()
        reader = ledger.reader = client(server.url)
        async with Link(server.url) as link:
            ledger.link = link
            with pytest.raises(Fenced):
                await ledger.settle("r4")
            assert len(await reopen.closed_partitions(link)) == 256
            assert await ledger.reopen() == reopen.Report(partitions=256, rebuilt=0, adopted=0)
            assert await reopen.closed_partitions(link) == []
            assert await ledger.balance() == before
            assert [int(v) for v in await link.command("HMGET", META, "epoch", "seq")] == [2, 0]
            assert await cold.epochs.find_one({"_id": f"{P}:1"}, {"_id": 0}) == {
                "partition": P, "epoch": 1, "closed_at_seq": 3,
            }  # fmt: skip
            await ledger.settle("r4")
            await ledger.move()
            assert [(d["epoch"], d["seq"]) for d in await ledger.kept()] == [(1, 1), (1, 2), (1, 3), (2, 1)]
            assert (await ledger.audit()).agrees
        await reader.aclose()


async def test_an_emptied_redis_is_refilled_to_the_nano(ledger: Ledger) -> None:
    await ledger.charge("r1", "r2")
    await ledger.admit("a1", lease_us=0)
    await hot.progress(ledger.link, PLACE, "a1", used_nanos=3, lease_us=0)
    await sweeper.sweep(ledger.link)
    await ledger.settle("a1", 7)
    await ledger.admit("a2", lease_us=0)
    await sweeper.sweep(ledger.link)
    await ledger.move()
    before = await ledger.balance()
    await ledger.link.command("FLUSHALL")
    report = await ledger.reopen()
    assert (report.partitions, report.rebuilt) == (256, 256)
    assert await ledger.balance() == before == {"avail": 983, "held": 0, "credited": 1000, "spent": 17, "live": 0}
    assert (await ledger.audit()).agrees
    # What was ended stays ended; what was abandoned may still be late.
    assert (await ledger.settle("r1")).end == "repeat"
    assert (await ledger.settle("a1", 9)).end == "repeat"
    assert (await ledger.settle("a2", 2)).end == "late"
    await ledger.charge("r3")
    await ledger.move()
    assert (await ledger.audit()).agrees
    assert {(d["epoch"], d["seq"]) for d in await ledger.kept()} >= {(2, 1), (2, 2)}
    assert [(d["epoch"], d["closed_at_seq"]) async for d in ledger.cold.epochs.find({"partition": P})] == [(1, 5)]


async def test_adopting_again_changes_nothing(ledger: Ledger) -> None:
    await ledger.charge("r1", "r2")
    await ledger.move()
    await ledger.link.command("FLUSHALL")
    await ledger.reopen()
    before = await ledger.balance()
    for _ in range(2):
        await ledger.link.command("HSET", META, "server", "another", "epoch", 0, "seq", 0)
        assert (await ledger.reopen()).adopted == 0
        assert await ledger.balance() == before
    assert (await ledger.audit()).agrees


async def test_a_lost_tail_is_adopted_and_its_holds_released(ledger: Ledger) -> None:
    """A promoted replica that has the admits and not the settles, whose events MongoDB has already."""
    await ledger.admit("r1")
    await ledger.admit("r2")
    keys = await ledger.link.command("KEYS", f"w1:{{p{P}}}:*")
    dumps = {key: await ledger.link.command("DUMP", key) for key in keys}
    await ledger.settle("r1", 7)
    await ledger.move()
    for key in await ledger.link.command("KEYS", f"w1:{{p{P}}}:*"):
        await ledger.link.command("DEL", key)
    for key, dump in dumps.items():
        await ledger.link.command("RESTORE", key, 0, dump)
    await ledger.link.command("HSET", META, "server", "the old primary")
    assert (await ledger.reopen()).adopted == 1
    assert await ledger.balance() == {"avail": 983, "held": 10, "credited": 1000, "spent": 7, "live": 1}
    assert InUse.read(await ledger.link.command("GET", keyspace.line(P, "line"))).live == 1
    assert (await ledger.settle("r1", 7)).end == "repeat"
    assert (await ledger.audit()).agrees


async def test_an_epoch_number_is_never_given_twice(ledger: Ledger) -> None:
    """Also when the closed epochs had no events: they are known from `epochs`."""
    for expected in (2, 3):
        await ledger.link.command("HSET", META, "server", "another")
        await ledger.reopen()
        assert int(await ledger.link.command("HGET", META, "epoch")) == expected
    await ledger.link.command("FLUSHALL")
    await ledger.reopen()
    assert int(await ledger.link.command("HGET", META, "epoch")) >= 3


async def test_another_installations_redis_is_refused_with_both_ids(ledger: Ledger) -> None:
    await ledger.link.command("HSET", META, "server", "another", "instance", "deadbeef")
    single = await ledger.cold.singles.find_one({"_id": "instance"})
    assert single is not None
    with pytest.raises(reopen.Refused) as refusal:
        await ledger.reopen()
    assert "deadbeef" in str(refusal.value)
    assert single["id"] in str(refusal.value)
    assert await ledger.link.command("HGET", META, "server") == b"another"  # nothing was taken


async def test_a_redis_with_events_beside_an_empty_mongodb_is_refused(ledger: Ledger) -> None:
    await ledger.charge("r1")
    single = await ledger.cold.singles.find_one({"_id": "instance"})
    assert single is not None
    await ledger.cold.accounts.delete_many({})
    await ledger.link.command("HSET", META, "server", "another")
    with pytest.raises(reopen.Refused, match=f"booked 1 events.*{single['id']}"):
        await ledger.reopen()


async def test_an_old_leader_cannot_reopen(ledger: Ledger) -> None:
    await ledger.link.command("HSET", META, "server", "another", "term", 100)
    with pytest.raises(reopen.Superseded):
        await ledger.reopen()
    assert [m.partition for m in await reopen.closed_partitions(ledger.link)] == [P]


async def test_a_full_redis_is_opened_and_drained(ledger: Ledger) -> None:
    """What cannot be opened cannot be drained, and what is not drained stays full."""
    await ledger.charge("r1")
    await ledger.link.command("HSET", META, "server", "another")
    await ledger.link.command("CONFIG", "SET", "maxmemory", "1")
    await ledger.reopen()
    await ledger.move()
    assert [d["_id"] for d in await ledger.kept()] == ["r1"]


async def test_the_books_agree_with_events_in_both_and_a_live_hold(ledger: Ledger) -> None:
    await ledger.charge("r1")
    await ledger.move()
    await ledger.charge("r2")
    await ledger.admit("r3")
    report = await ledger.audit()
    assert report.agrees
    assert (report.accounts, report.events, report.events_waiting, report.missing_events) == (1, 1, 1, 0)
    assert (report.credited_nanos, report.spent_nanos, report.held_nanos, report.available_nanos) == (1000, 10, 10, 980)


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("avail", {"available"}), ("held", {"held", "available"}), ("live", {"concurrency"}),
        ("spent", {"spent", "available"}), ("credited", {"credited", "available"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("by", [1, -1])
async def test_each_planted_difference_is_found(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, field: str, found: set[str], by: int
) -> None:
    monkeypatch.setattr(audit, "_PAUSE_S", 0)
    await ledger.charge("r1")
    await ledger.move()
    await ledger.admit("r2")
    await plant(ledger.link, ACCOUNT, field, by)
    report = await ledger.audit()
    assert {d.what for d in report.differences} == found
    assert not report.agrees
    assert {d.account for d in report.differences} == {"acc"}
    await plant(ledger.link, ACCOUNT, field, -by)
    assert (await ledger.audit()).agrees


async def test_a_deleted_event_is_found_twice(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_PAUSE_S", 0)
    await ledger.charge("r1", "r2", "r3")
    await ledger.move()
    await ledger.cold.usage.delete_one({"_id": "r2"})
    report = await ledger.audit()
    assert ([d.what for d in report.differences], report.missing_events) == (["spent"], 1)


@pytest.mark.parametrize("closed", [False, True])
async def test_a_gap_is_found_in_open_and_closed_epochs(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    monkeypatch.setattr(audit, "_PAUSE_S", 0)
    await ledger.charge("r1", "r2", cost=0)  # of no charge: only its number tells
    await ledger.move()
    if closed:
        await ledger.link.command("FLUSHALL")
        await ledger.reopen()
    assert (await ledger.audit()).agrees
    await ledger.cold.usage.delete_one({"_id": "r1"})
    report = await ledger.audit()
    assert (report.missing_events, report.differences, report.agrees) == (1, [], False)


async def test_an_event_that_vanished_from_the_stream_is_found(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_PAUSE_S", 0)
    await ledger.charge("r1", "r2")
    entries: Any = await ledger.reader.xrange(USAGE)
    [(entry_id, _), _] = entries
    await ledger.link.command("XDEL", USAGE, entry_id)
    report = await ledger.audit()
    assert ([d.what for d in report.differences], report.missing_events) == (["spent"], 1)
