"""An emptied Redis is refilled by absolute values: from statements, and the events since; nothing is counted twice."""

from datetime import date, datetime, timedelta

import pytest

from ledger import hot, keyspace, publish, rebuild, reopen, statements, takeover
from ledger.auditor import Auditor
from ledger.cold import now
from ledger.consumer import Consumer
from ledger.hot import Ended, Offer, Refused, Versions
from ledger.lease import Lease
from ledger.lines import InUse
from tests.integration.ledger_books import PLACE, Ledger, P
from weir import rebuilding

CREDITED = 10**6


async def wipe(ledger: Ledger) -> None:
    await ledger.link.command("FLUSHALL")


async def rebuilt(ledger: Ledger, term: int = 2) -> reopen.Report:
    closed = await reopen.closed_partitions(ledger.link)
    return await reopen.reopen(ledger.cold, ledger.link, closed, term=term)


async def state_yesterday(ledger: Ledger) -> None:
    """What is in MongoDB now becomes yesterday's, and is stated."""
    day = now() - timedelta(days=1)
    await ledger.cold.usage.update_many({"purge_at": None}, {"$set": {"day": day.strftime("%Y-%m-%d"), "at": day}})

    async def opened(_partition: str, _day: str) -> None:
        pass

    assert await statements.close_days(ledger.cold, ledger.link, now=now(), partitions=[P], opened=opened) == [P]


async def test_everything_comes_back_but_the_holds(ledger: Ledger) -> None:
    await ledger.charge("a", "b", cost=7)
    await ledger.admit("held", 100)
    await ledger.move()
    await wipe(ledger)
    report = await rebuilt(ledger)
    assert (report.partitions, report.rebuilt, report.adopted) == (256, 256, 0)
    restored = report.restored
    assert (restored.accounts, restored.api_keys, restored.marks, restored.capped_lines) == (1, 1, 2, 0)
    assert (restored.credited_nanos, restored.spent_nanos) == (10**6, 14)
    assert await ledger.balance() == {"avail": 10**6 - 14, "held": 0, "credited": 10**6, "spent": 14, "live": 0}
    assert (await ledger.settle("a", 7)).end == "repeat"
    assert (await ledger.settle("held", 3)).end == "orphan"
    await ledger.charge("new")
    await ledger.move()
    assert (await ledger.audit()).agrees


async def test_purged_usage_counts_by_its_statement(ledger: Ledger) -> None:
    await ledger.charge("old1", "old2", cost=10)
    await ledger.move()
    await state_yesterday(ledger)
    await ledger.cold.usage.delete_many({"purge_at": {"$exists": True}})
    await ledger.charge("new", cost=1)
    await ledger.move()
    await wipe(ledger)
    await rebuilt(ledger)
    assert (await ledger.balance())["spent"] == 21
    assert (await ledger.audit()).agrees
    meta = await ledger.link.command("HMGET", keyspace.meta(P), "epoch", "floor")
    midnight = datetime.fromisoformat(f"{now():%Y-%m-%d}T00:00:00+00:00").timestamp()
    assert [int(value) for value in meta] == [2, round(midnight) * 10**6]  # a sealed day stays sealed


async def test_everything_was_purged_and_the_epoch_still_goes_on(ledger: Ledger) -> None:
    await ledger.charge("old")
    await ledger.move()
    await state_yesterday(ledger)
    await ledger.cold.usage.delete_many({})
    await wipe(ledger)
    await rebuilt(ledger)
    assert int(await ledger.link.command("HGET", keyspace.meta(P), "epoch")) == 2
    assert (await ledger.balance())["spent"] == 5


async def test_late_and_abandoned_requests_are_remembered_as_they_stood(ledger: Ledger) -> None:
    for rid in ("left", "late"):
        await ledger.admit(rid)
        await hot.progress(ledger.link, PLACE, rid, used_nanos=4, lease_us=0)
        assert await hot.sweep(ledger.link, PLACE, rid) is not None
    await ledger.settle("late", 6)
    await ledger.move()
    await wipe(ledger)
    await rebuilt(ledger)
    assert (await ledger.balance())["spent"] == 10
    assert await ledger.settle("late", 6) == Ended("repeat", 6, 0, 0)
    assert await ledger.settle("left", 9) == Ended("late", 5, 0, 1)
    await ledger.move()
    assert (await ledger.audit()).agrees


async def test_a_late_one_is_remembered_with_what_was_charged_an_hour_before(ledger: Ledger) -> None:
    await ledger.admit("late")
    await hot.progress(ledger.link, PLACE, "late", used_nanos=4, lease_us=0)
    assert await hot.sweep(ledger.link, PLACE, "late") is not None
    assert await ledger.settle("late", 6) == Ended("late", 2, 0, 2)
    await ledger.move()
    await ledger.cold.usage.update_one({"_id": "late"}, {"$set": {"at": now() - timedelta(hours=2)}})
    await wipe(ledger)
    await rebuilt(ledger)
    assert (await ledger.balance())["spent"] == 6
    assert await ledger.settle("late", 6) == Ended("repeat", 6, 0, 0)


async def test_old_requests_are_not_marked(ledger: Ledger) -> None:
    await ledger.charge("young", "old")
    await ledger.move()
    await ledger.cold.usage.update_one({"_id": "old"}, {"$set": {"at": now() - timedelta(hours=2)}})
    await wipe(ledger)
    assert (await rebuilt(ledger)).restored.marks == 1


async def test_spend_caps_go_on_from_what_was_spent(ledger: Ledger) -> None:
    await ledger.charge("today", cost=30)
    await ledger.charge("before", cost=40)
    await ledger.move()
    month = now().replace(day=1)
    await ledger.cold.usage.update_one({"_id": "before"}, {"$set": {"day": month.strftime("%Y-%m-%d")}})
    limits = {"daily_cap_nanos": 100, "monthly_cap_nanos": 100}
    await ledger.cold.api_keys.update_one({"_id": "key"}, {"$set": {"limits": limits, "version": 2}})
    await wipe(ledger)
    assert (await rebuilt(ledger)).restored.capped_lines == 1
    line = InUse.read(await ledger.link.command("GET", keyspace.line(P, "line")))
    of_day = 30 if now().day > 1 else 70
    assert (line.spent_in_day, line.spent_in_month) == (of_day, 70)
    config = int(await ledger.link.command("HGET", keyspace.meta(P), "config"))

    async def admit(rid: str, amount: int) -> object:
        return await hot.admit(ledger.link, PLACE, rid, Versions(2, 1, config), Offer([amount], 0))

    refused = await admit("more", 31)
    assert isinstance(refused, Refused)
    assert refused == Refused("CAP", ("month" if now().day > 1 else "day", "31", "30"))
    assert not isinstance(await admit("fits", 30), Refused)


def test_months_are_numbered_as_in_the_script() -> None:
    for day in (date(2024, 1, 1), date(2024, 2, 29), date(2024, 3, 1), date(2026, 12, 31), date(2000, 2, 29)):
        z = (day - date(1970, 1, 1)).days + 719468
        era, doe = divmod(z, 146097)
        yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
        doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
        assert rebuild.months_of(day) == (era * 400 + yoe) * 12 + (5 * doy + 2) // 153


async def test_the_counters_of_the_script_are_the_rebuilds(ledger: Ledger) -> None:
    await ledger.charge("r")
    written = InUse.read(await ledger.link.command("GET", keyspace.line(P, "line")))
    today = now().date()
    assert [written.day, written.month] == [(today - date(1970, 1, 1)).days, rebuild.months_of(today)]


async def test_a_rebuild_that_is_cut_off_is_made_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    await ledger.charge("a")
    await ledger.move()
    await wipe(ledger)

    class Died(Exception):
        pass

    async def dies(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(publish, "config", dies)
        with pytest.raises(Died):
            await rebuilt(ledger)
    assert (await ledger.balance())["spent"] == 5
    report = await rebuilt(ledger, term=3)
    assert report.restored.accounts == 1
    assert (await ledger.balance())["spent"] == 5
    assert (await ledger.audit()).agrees


async def test_a_later_leader_ends_it(ledger: Ledger) -> None:
    await wipe(ledger)
    await takeover.reopen(ledger.link, P, "take", term=9)
    with pytest.raises(reopen.Superseded):
        await rebuilt(ledger, term=8)
    with pytest.raises(rebuild.Superseded):
        await rebuild.restore(ledger.cold, ledger.link, [P], term=8)


async def lost_tail(ledger: Ledger) -> bytes:
    """Two charges of which the server, promoted, knows only the first; the second's entry is in a worker's hands."""
    await ledger.charge("kept")
    await ledger.move()
    await ledger.admit("lost")
    before = await ledger.link.command("HGETALL", keyspace.account(P, "acc"))
    hold = await ledger.link.command("DUMP", keyspace.hold(P, "lost"))
    await ledger.settle("lost", 6)
    [[_, entry]] = await ledger.link.command("XRANGE", keyspace.usage(P), "-", "+")
    flat = [part for pair in before.items() for part in pair] if isinstance(before, dict) else before
    await ledger.link.command("HSET", keyspace.account(P, "acc"), *flat)
    await ledger.link.command("RESTORE", keyspace.hold(P, "lost"), 0, hold, "REPLACE")
    await ledger.link.command("ZADD", keyspace.due(P), 10**16, "lost")
    await ledger.link.command("SET", keyspace.line(P, "line"), InUse(live=1).record())
    await ledger.link.command("DEL", keyspace.usage(P))
    await ledger.link.command("HSET", keyspace.meta(P), "seq", 1, "server", "another")
    await rebuilt(ledger)
    words = [part for pair in entry.items() for part in pair] if isinstance(entry, dict) else entry
    return await ledger.link.command("XADD", keyspace.usage(P), "*", *words)  # type: ignore[no-any-return]


async def test_an_event_beyond_the_close_of_its_epoch_is_adopted_at_once(ledger: Ledger) -> None:
    await lost_tail(ledger)
    await ledger.move(Consumer(ledger.cold, ledger.link, ledger.reader))
    assert await ledger.balance() == {"avail": 10**6 - 11, "held": 0, "credited": 10**6, "spent": 11, "live": 0}
    assert (await ledger.settle("lost", 6)).end == "repeat"
    assert await Auditor(ledger.cold, ledger.link).step([P]) == 0
    assert (await ledger.balance())["spent"] == 11
    assert (await ledger.audit()).agrees
    await wipe(ledger)  # and a rebuild that follows has it once
    await rebuilt(ledger, term=3)
    assert (await ledger.balance())["spent"] == 11
    await reopen.adopt_beyond(ledger.cold, ledger.link, P)
    assert (await ledger.balance())["spent"] == 11


async def test_one_that_a_rebuild_counted_is_never_adopted(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came an hour ago, and the worker died before it adopted it: Redis has no mark of it any more, only the sum."""
    await lost_tail(ledger)
    with monkeypatch.context() as dying:

        async def dies(*_: object) -> int:
            raise ConnectionResetError

        dying.setattr(reopen, "adopt_beyond", dies)
        with pytest.raises(ConnectionResetError):
            await ledger.move(Consumer(ledger.cold, ledger.link, ledger.reader))
    await ledger.cold.usage.update_one({"_id": "lost"}, {"$set": {"at": now() - timedelta(hours=2)}})
    await wipe(ledger)
    assert (await rebuilt(ledger, term=3)).restored.marks == 1
    assert (await ledger.balance())["spent"] == 11
    await reopen.adopt_beyond(ledger.cold, ledger.link, P)
    assert (await ledger.balance())["spent"] == 11
    assert (await ledger.audit()).agrees


async def test_one_that_was_posted_again_before_it_came_is_counted_once(ledger: Ledger) -> None:
    await lost_tail(ledger)
    assert (await ledger.settle("lost", 6)).end == "settled"  # the gateway had kept it
    moved = await ledger.move(Consumer(ledger.cold, ledger.link, ledger.reader))
    assert moved == 2
    assert (await ledger.balance())["spent"] == 11
    assert [d["event"] async for d in ledger.cold.reposted.find()] == ["lost"]
    report = await ledger.audit()
    assert (report.agrees, report.missing_events) == (True, 0)


async def test_the_command_says_what_it_did(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    await ledger.charge("a")
    await ledger.move()
    seen: list[tuple[int, int]] = []

    async def run() -> rebuilding.Rebuilt:
        return await rebuilding.under_lease(ledger.cold, ledger.link, progress=lambda *p: seen.append(p))

    nothing = await run()
    assert (nothing.partitions, rebuilding.table(nothing)) == (
        0, "Every partition is open: there was nothing to rebuild.",
    )  # fmt: skip
    await wipe(ledger)
    done = await run()
    assert (done.partitions, done.rebuilt, done.accounts, done.api_keys, done.marks) == (256, 256, 1, 1, 1)
    assert seen[-1] == (2, 2)
    assert "accounts                              1" in rebuilding.table(done)
    leading = Lease(ledger.cold)
    assert await leading.hold()
    await wipe(ledger)
    with pytest.raises(SystemExit):
        await run()
    assert "leads, and refills Redis by itself" in capsys.readouterr().err
    assert await ledger.link.command("DBSIZE") == 0
