"""Free requests: counted in admit, whoever asks and however often; they hold nothing and cost nothing."""

import asyncio
from typing import Any

import pytest

from ledger import hot, scripts
from ledger.hot import Admitted, Ended, Refused
from ledger.link import Link
from tests.lua.books import (
    ACCOUNT,
    EXPIRES,
    FUTURE,
    KEY,
    LINE,
    USAGE,
    USD,
    Books,
    admit_args,
    admit_keys,
    changed,
    event,
)

SETTLED = Ended("settled", 0, 0, 1)


@pytest.fixture
async def two(bare: Books) -> Books:
    """An account with $10 and two free requests a month."""
    await bare.open()
    await bare.account(free=2)
    await bare.key()
    return bare


async def used(books: Books) -> int:
    return await books.get(ACCOUNT, "fused")


async def free_in_stream(books: Books) -> list[str | None]:
    return [entry.get("free") for entry in (await books.picture()).get("usage", [])]


async def test_so_many_are_free_and_the_next_is_held(two: Books) -> None:
    replies = [await two.admitted(f"r{n}", 3 * USD) for n in range(3)]
    assert [(r.free, r.amount_nanos) for r in replies] == [(True, 0), (True, 0), (False, 3 * USD)]
    assert (await two.get(ACCOUNT, "avail"), await two.get(ACCOUNT, "held")) == (7 * USD, 3 * USD)
    assert (await two.get(ACCOUNT, "live"), await used(two)) == (3, 2)


async def test_a_free_one_changes_what_any_other_does_but_money(two: Books) -> None:
    before = await two.picture()
    reply = await two.admitted("r1", 3 * USD, 2 * USD, tokens=7, keep=5)
    assert reply == Admitted(1, 0, reply.at_us, 0, 0, 0, 0, free=True)
    now, line = str(reply.at_us), (await two.picture())["line:line"]
    periods = {"day": line["day"], "month": line["month"]}
    assert await two.picture() == changed(
        before,
        hold__r1={
            "st": "L", "n": "2", "amt": "0", "at": now, "used": "0", "tokens": "7", "lus": "0", "aus": "0", **periods,
            "keep": "5", "who": "acc key line", "facts": "facts", "free": line["month"],
        },
        due={"r1": reply.at_us + hot.LEASE_US},
        acct__acc={
            "held": "0", "live": "1", "rt": now, "tt": now, "fmonth": line["month"], "fused": "1",
        },
        line__line={"live": "1", "rt": now, "tt": now, **periods, "dsum": "0", "msum": "0"},
    )  # fmt: skip


async def test_an_account_without_money_is_served_while_there_are_free_ones(bare: Books) -> None:
    await bare.open()
    await bare.account(None, free=1)
    await bare.key(dcap=0, mcap=0)
    assert (await bare.admitted("r1")).free
    assert await bare.admit("r2") == Refused("FUNDS", (str(USD), "0"))


async def test_the_last_amount_is_taken_however_much_there_is(two: Books) -> None:
    assert (await two.admitted("r1", 30, 20, 10)).choice == 2
    assert (await two.admitted("r2", 30)).choice == 0


async def test_what_costs_nothing_anyway_uses_none_up(two: Books) -> None:
    assert not (await two.admitted("r1", 0)).free
    assert (await two.admitted("r2", 1, 0)).free
    assert await used(two) == 1


async def test_parallel_callers_get_exactly_as_many(shared_url: str, bare: Books) -> None:
    await bare.open()
    await bare.account(free=7)
    await bare.key()

    async def ask(number: int) -> Admitted | Refused:
        async with Link(shared_url) as link:
            return await Books(link).admit(f"r{number}", 2 * USD)

    replies = await asyncio.gather(*(ask(number) for number in range(50)))
    admitted = [reply for reply in replies if isinstance(reply, Admitted)]
    assert sum(reply.free for reply in admitted) == 7 == await used(bare)
    assert len(admitted) == 7 + 5  # $10 pay for five more
    assert {reply.amount_nanos for reply in admitted if reply.free} == {0}


async def test_a_new_month_begins_at_nothing(two: Books) -> None:
    for n in range(2):
        assert (await two.admitted(f"r{n}")).free
    month = await two.get(ACCOUNT, "fmonth")
    assert month == await two.get(LINE, "month")
    assert not (await two.admitted("r2")).free
    await two.set(ACCOUNT, fmonth=month - 1)
    assert (await two.admitted("r3")).free
    assert (await two.get(ACCOUNT, "fmonth"), await used(two)) == (month, 1)


async def test_a_clock_that_stepped_back_opens_no_old_month(two: Books) -> None:
    await two.set(ACCOUNT, fmonth=99_999, fused=2)
    assert not (await two.admitted("r1")).free
    await two.set(ACCOUNT, fused=1)
    assert (await two.admitted("r2")).free
    assert (await two.get(ACCOUNT, "fmonth"), await used(two)) == (99_999, 2)
    await two.settle("r2", 0, void=True)
    assert await used(two) == 1


async def test_a_settle_costs_nothing_whatever_it_says(two: Books) -> None:
    await two.admitted("r1", 3 * USD)
    before = await two.picture()
    assert await two.settle("r1", 2 * USD) == SETTLED
    assert await two.picture() == changed(
        before,
        meta={"seq": "1"},
        hold__r1={"st": "S", "charge": "0", "short": "0", EXPIRES: "yes"},
        due={"r1": None},
        acct__acc={"live": "0", "spent": "0", "tt": before["acct:acc"]["tt"]},
        line__line={"live": "0", "tt": before["line:line"]["tt"]},
        usage=[event("settled", 0, free=1)],
    )
    assert await two.settle("r1", 2 * USD) == Ended("repeat", 0, 0, 0)
    assert await used(two) == 1


@pytest.mark.parametrize("keep", [0, 5, "hold"])
@pytest.mark.parametrize("reported", [0, 7])
async def test_an_abandoned_one_costs_nothing_and_neither_does_its_late_settle(
    two: Books, keep: Any, reported: int
) -> None:
    await two.admitted("r1", 3 * USD, keep=keep)
    assert await two.progress("r1", reported) == "OK"
    ended = await two.abandon("r1")
    assert (ended.charge_nanos, ended.shortfall_nanos) == (0, 0)
    assert await two.settle("r1", 2 * USD) == Ended("late", 0, 0, 2)
    assert await two.get(ACCOUNT, "avail") == 10 * USD
    assert await free_in_stream(two) == ["1", "1"]
    assert await used(two) == 1


async def test_a_void_gives_it_back(two: Books) -> None:
    await two.admitted("r1")
    await two.admitted("r2")
    assert await two.settle("r1", 0, void=True) == Ended("voided", 0, 0, 1)
    assert await used(two) == 1
    assert await two.settle("r1", 0, void=True) == Ended("repeat", 0, 0, 0)
    assert await used(two) == 1
    assert (await two.admitted("r3")).free
    assert not (await two.admitted("r4")).free


async def test_a_void_of_one_that_was_not_free_gives_nothing_back(two: Books) -> None:
    for n in range(3):
        await two.admitted(f"r{n}")
    await two.settle("r2", 0, void=True)
    await two.settle("never begun", 0, void=True)
    assert await used(two) == 2
    assert await free_in_stream(two) == [None]


async def test_a_void_from_an_older_month_leaves_the_new_one_alone(two: Books) -> None:
    await two.admitted("r1")
    month = await two.get(ACCOUNT, "fmonth")
    await two.set(ACCOUNT, fmonth=month + 1, fused=1)
    await two.settle("r1", 0, void=True)
    assert (await two.get(ACCOUNT, "fmonth"), await used(two)) == (month + 1, 1)


async def test_a_repeat_answers_the_same_and_counts_once(two: Books) -> None:
    first = await two.admitted("r1", 3 * USD, 2 * USD)
    before = await two.picture()
    assert await two.admit("r1", 3 * USD, 2 * USD) == first
    assert await two.picture() == before
    held = [await two.admitted("r2"), await two.admitted("r3")][1]
    assert not held.free
    assert await two.admit("r3") == held


@pytest.mark.parametrize(
    ("key", "account", "line"),
    [
        ({"conc": 0}, {}, {}),
        ({"rpm": 1}, {}, {"rt": FUTURE}),
        ({"tpm": 1}, {}, {"tt": FUTURE}),
        ({}, {"rpm": 1, "rt": FUTURE}, {}),
        ({"status": "revoked"}, {}, {}),
        ({}, {"status": "suspended"}, {}),
    ],
)
async def test_a_refused_request_uses_none_up(
    two: Books, key: dict[str, Any], account: dict[str, Any], line: dict[str, Any]
) -> None:
    await two.set(KEY, **key)
    await two.set(ACCOUNT, **account)
    await two.set(LINE, **line)
    before = await two.picture()
    assert isinstance(await two.admit(tokens=1), Refused)
    assert await two.picture() == before


async def test_a_backlog_refuses_free_ones_too(two: Books) -> None:
    await two.link.command("XADD", USAGE, "*", "at", await two.now())
    assert await two.run(scripts.ADMIT, admit_keys(), *admit_args("r1", USD, bound=1)) == ["BACKLOG"]
    assert not await two.link.command("HEXISTS", ACCOUNT, "fused")


async def test_progress_never_stops_a_free_one(two: Books) -> None:
    await two.admitted("r1")
    assert await two.progress("r1", 5 * USD) == "OK"
    assert (await two.hold())["used"] == str(5 * USD)
    await two.admitted("r2")
    await two.admitted("r3", USD)
    assert await two.progress("r3", USD) == "STOP"


async def test_a_plan_that_gives_fewer_and_then_none(two: Books) -> None:
    await two.admitted("r1")
    await two.account(None, version=2, free=1)
    assert not (await two.admitted("r2", versions=hot.Versions(1, 2, 1))).free
    await two.account(None, version=3, free="")
    assert not (await two.admitted("r3", versions=hot.Versions(1, 3, 1))).free
    await two.account(None, version=4, free=2)
    assert (await two.admitted("r4", versions=hot.Versions(1, 4, 1))).free
