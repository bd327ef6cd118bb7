"""settle: each word, each end, and the whole partition after it."""

import math
from typing import Any

import pytest
from redis.exceptions import ResponseError

from ledger import holds, hot, scripts, takeover
from ledger.hot import Ended, Fenced, Offer, Old
from tests.lua.books import (
    ACCOUNT,
    CAP,
    DUE,
    EXPIRES,
    LINE,
    META,
    PLACE,
    USAGE,
    USD,
    USED,
    VERSIONS,
    Books,
    changed,
    complaint,
    ending_keys,
    event,
    hold_key,
    settle_args,
)  # fmt: skip

HOUR_US = 3_600_000_000
MARK = {"st": "S", EXPIRES: "yes"}  # what is left of a hold
FREE = {"live": "0", "dsum": "0", "msum": "0"}


async def test_settled_replaces_the_hold_by_the_charge(books: Books) -> None:
    await books.admitted("r1", 3 * USD)
    before = await books.picture()
    assert await books.settle("r1", 2 * USD) == Ended("settled", 2 * USD, 0, 1)
    after = await books.picture()
    assert after == changed(
        before,
        meta={"seq": "1"},
        hold__r1={**MARK, "charge": str(2 * USD), "short": "0"},
        due=None,
        acct__acc={"avail": str(8 * USD), "held": "0", "live": "0", "spent": str(2 * USD)},
        line__line={"live": "0", "dsum": str(2 * USD), "msum": str(2 * USD)},
        usage=[event("settled", 2 * USD, hold=3 * USD)],
    )
    # ... and again, whatever it says now: the first result, and nothing changed.
    assert await books.settle("r1", 5 * USD) == Ended("repeat", 2 * USD, 0, 0)
    assert await books.settle("r1", 0, void=True) == Ended("repeat", 2 * USD, 0, 0)
    assert await books.sweep("r1") is None
    assert await books.picture() == after


async def test_voided_gives_everything_back_and_says_so(books: Books) -> None:
    await books.admitted("r1", 3 * USD)
    before = await books.picture()
    assert await books.settle("r1", 0, void=True) == Ended("voided", 0, 0, 1)
    after = await books.picture()
    assert after == changed(
        before,
        meta={"seq": "1"},
        hold__r1={**MARK, "charge": "0", "short": "0"},
        due=None,
        acct__acc={"avail": str(10 * USD), "held": "0", "live": "0", "spent": "0"},
        line__line=FREE,
        usage=[event("voided", 0, hold=3 * USD)],
    )
    assert await books.settle("r1", 5) == Ended("repeat", 0, 0, 0)
    assert await books.picture() == after


@pytest.mark.parametrize(("cost", "more"), [(500, 400), (100, 0), (99, 0), (0, 0)])
async def test_late_posts_the_difference(books: Books, cost: int, more: int) -> None:
    await books.admitted("r1", 1000)
    await books.progress("r1", 100)
    await books.abandon()
    before = await books.picture()
    assert await books.settle("r1", cost) == Ended("late", more, 0, 2)
    after = await books.picture()
    assert after == changed(
        before,
        meta={"seq": "2"},
        hold__r1={**MARK, "charge": str(100 + more), "short": "0"},
        acct__acc={"avail": str(10 * USD - 100 - more), "spent": str(100 + more)},
        line__line={"dsum": str(100 + more), "msum": str(100 + more)},
        usage=[event("late", more, seq=2, spent=100 + more)],
    )
    assert await books.settle("r1", 9000) == Ended("repeat", 100 + more, 0, 0)
    assert await books.picture() == after


async def test_late_after_a_shortfall_charges_neither_twice(bare: Books) -> None:
    await bare.ready(100)
    await bare.admitted("r1", 100)
    await bare.progress("r1", 150)
    assert await bare.abandon() == Ended("abandoned", 100, 50, 1)
    assert await bare.grant(2, 1000) == "OK"
    assert await bare.settle("r1", 170) == Ended("late", 20, 0, 2)
    assert await bare.settle("r1", 170) == Ended("repeat", 120, 50, 0)


async def test_late_after_a_mark_that_the_ledger_put_back(books: Books) -> None:
    await books.link.command("SET", hold_key(), holds.swept(5, 7))
    assert await books.settle("r1", 20) == Ended("late", 8, 0, 1)
    assert await books.settle("r1", 20) == Ended("repeat", 13, 7, 0)


async def test_void_after_the_sweeper_keeps_what_was_charged(books: Books) -> None:
    await books.admitted("r1", 1000)
    await books.progress("r1", 100)
    await books.abandon()
    before = await books.picture()
    assert await books.settle("r1", 0, void=True) == Ended("voided", 100, 0, 0)
    assert await books.picture() == changed(before, hold__r1={**MARK, "charge": "100", "short": "0"})
    assert await books.settle("r1", 500) == Ended("repeat", 100, 0, 0)


async def test_orphan_is_charged(books: Books) -> None:
    before = await books.picture()
    assert await books.settle("r1", 100) == Ended("orphan", 100, 0, 1)
    after = await books.picture()
    assert after == changed(
        before,
        meta={"seq": "1"},
        hold__r1={"st": "S", "charge": "100", "short": "0", EXPIRES: "yes"},
        acct__acc={"avail": str(10 * USD - 100), "held": "0", "live": "0", "spent": "100", "tt": "0"},
        line__line=dict.fromkeys(USED, "0"),
        usage=[event("orphan", 100)],
    )
    assert await books.settle("r1", 100) == Ended("repeat", 100, 0, 0)
    assert await books.picture() == after


async def test_a_void_before_its_admit_leaves_a_tombstone_and_no_event(books: Books) -> None:
    before = await books.picture()
    assert await books.settle("r1", 0, void=True) == Ended("voided", 0, 0, 0)
    assert await books.picture() == changed(before, hold__r1={"st": "S", "charge": "0", "short": "0", EXPIRES: "yes"})


@pytest.mark.parametrize("void", [False, True])
async def test_old_changes_nothing(books: Books, void: bool) -> None:
    before = await books.picture()
    at = await books.now() - HOUR_US + 300_000_000 - 1
    assert await books.settle("r1", 0, at=at, void=void) == Old()
    assert await books.picture() == before
    assert isinstance(await books.settle("r1", 0, at=at + 10_000_000, void=void), Ended)


async def test_old_is_only_for_what_redis_does_not_know(books: Books) -> None:
    await books.admitted("r1")
    assert await books.settle("r1", 5, at=0) == Ended("settled", 5, 0, 1)


@pytest.mark.parametrize(
    ("credit", "hold", "cost", "charge"),
    [
        (100, 60, 60, 60),
        (100, 60, 100, 100),  # what is available pays beyond the hold
        (100, 60, 101, 100),
        (100, 100, CAP, 100),
        (100, 0, 101, 100),
        (CAP, CAP, CAP, CAP),
        (0, 0, 1, 0),
        (0, 0, CAP, 0),
    ],
)
async def test_shortfall_is_what_hold_and_balance_cannot_pay(
    bare: Books, credit: int, hold: int, cost: int, charge: int
) -> None:
    await bare.ready(credit)
    await bare.admitted("r1", hold)
    before = await bare.picture()
    assert await bare.settle("r1", cost) == Ended("settled", charge, cost - charge, 1)
    assert await bare.picture() == changed(
        before,
        meta={"seq": "1"},
        hold__r1={**MARK, "charge": str(charge), "short": str(cost - charge)},
        due=None,
        acct__acc={"avail": str(credit - charge), "held": "0", "live": "0", "spent": str(charge)},
        line__line={"live": "0", "dsum": str(charge), "msum": str(charge)},
        usage=[event("settled", charge, hold=hold, short=cost - charge)],
    )
    assert await bare.settle("r1", 0) == Ended("repeat", charge, cost - charge, 0)


async def test_money_keeps_every_digit(bare: Books) -> None:
    """$9,007,199.254740991 through hold, charge, `spent` and the event; then an odd `spent` beyond 2^53."""
    await bare.ready(CAP)
    await bare.admitted("r1", CAP - 2)
    assert await bare.get(ACCOUNT, "avail") == 2
    await bare.settle("r1", CAP - 4)
    picture = await bare.picture()
    assert picture["usage"] == [event("settled", CAP - 4, hold=CAP - 2)]
    assert (picture["acct:acc"]["avail"], picture["acct:acc"]["spent"]) == ("4", str(CAP - 4))
    assert await bare.grant(2, 2 * CAP - 5) == "OK"
    assert await bare.get(ACCOUNT, "avail") == CAP - 1
    await bare.admitted("r2", CAP - 1)
    await bare.settle("r2", CAP - 3)
    assert await bare.get(ACCOUNT, "spent") == 2 * CAP - 7
    assert (await bare.picture())["usage"][1]["spent"] == str(2 * CAP - 7)
    assert await bare.get(ACCOUNT, "avail") == 2


async def test_zero_is_never_written_as_minus_zero(bare: Books) -> None:
    await bare.ready(0)
    await bare.admitted("r1", 0)
    await bare.progress("r1", 0)
    await bare.settle("r1", 0)
    await bare.admitted("r2", 0)
    await bare.abandon("r2")
    await bare.settle("r2", 0)
    await bare.settle("r3", 0)
    assert "-0" not in str(await bare.picture())


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    ("end", "cost", "admitted"),
    [
        ("settled", "-1", "1"), ("settled", "1.5", "1"), ("settled", str(CAP + 1), "1"), ("settled", "nan", "1"),
        ("settled", "inf", "1"), ("settled", "1", "-1"), ("settled", "1", "nan"), ("settled", "1", "0.5"),
        ("voided", "1", "1"), ("abandoned", "1", "1"), ("", "1", "1"), ("late", "0", "1"),
    ],
)  # fmt: skip
async def test_malformed_arguments_change_nothing(books: Books, held: bool, end: str, cost: str, admitted: str) -> None:
    if held:
        await books.admitted()
    before = await books.picture()
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.SETTLE, ending_keys(), *settle_args("r1", end, cost, admitted))
    assert await books.picture() == before


@pytest.mark.parametrize("tokens", [-2, 1.5, CAP + 1, math.nan, math.inf])
async def test_malformed_tokens_change_nothing(books: Books, tokens: float) -> None:
    await books.admitted()
    before = await books.picture()
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.SETTLE, ending_keys(), *settle_args("r1", "settled", 1, 1, tokens))
    assert await books.picture() == before


@pytest.mark.parametrize("missing", [1, 2, 3])
async def test_missing_arguments_change_nothing(books: Books, missing: int) -> None:
    await books.admitted()
    before = await books.picture()
    args = settle_args("r1", "settled", 1, await books.now())
    with pytest.raises(ResponseError):
        await books.run(scripts.SETTLE, ending_keys(), *args[:-missing])
    assert await books.picture() == before


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("key", [META, ACCOUNT, LINE, hold_key(), DUE, USAGE])
async def test_wrong_types_change_nothing(books: Books, key: str, void: bool) -> None:
    await books.admitted()
    await books.link.command("DEL", key)
    await books.link.command("SET", key, "text")
    before = await books.picture()
    with pytest.raises(ResponseError, match=complaint(key)):
        await books.settle("r1", 0, void=void)
    assert await books.picture() == before


async def test_a_hold_of_another_form_is_not_charged_on(books: Books) -> None:
    await books.link.command("HSET", hold_key(), "st", "H", "amt", 1000)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await books.settle("r1", 5)
    assert await books.link.command("XLEN", USAGE) == 0


async def test_a_full_server_still_takes_money_and_frees_holds(books: Books) -> None:
    for rid in ("r1", "r2", "r3"):
        await books.admitted(rid)
    await books.link.command("CONFIG", "SET", "maxmemory", "1")
    assert await books.settle("r1", 5) == Ended("settled", 5, 0, 1)
    assert await books.progress("r2", 7, lease_us=0) == "OK"
    assert await books.sweep("r2") == Ended("abandoned", 7, 0, 2)
    assert await books.settle("r3", 0, void=True) == Ended("voided", 0, 0, 3)
    assert await books.settle("r4", 1) == Ended("orphan", 1, 0, 4)
    assert await books.grant(2, 11 * USD) == "OK"
    assert await hot.publish(books.link, "5a", ACCOUNT, 2, {"status": "suspended"})
    assert await takeover.reopen(books.link, "5a", "take", term=2) == "OK"
    assert await takeover.adopt(books.link, PLACE, "r5", abandoned=False, charge_nanos=1, shortfall_nanos=0)
    await books.link.command("CONFIG", "SET", "maxmemory", "0")
    assert await books.get(ACCOUNT, "avail") == 11 * USD - 5 - 7 - 1 - 1


async def test_fenced_changes_nothing(books: Books) -> None:
    await books.admitted()
    await books.set(META, server="another")
    before = await books.picture()
    with pytest.raises(Fenced):
        await books.settle()
    assert await books.picture() == before


async def test_events_are_numbered_without_a_gap_over_all_scripts(books: Books) -> None:
    """Refusals, repeats, tombstones and errors use no number."""
    for number in range(5):
        await books.admitted(f"r{number}", 10)
        await books.settle(f"r{number}", 1)
        await books.settle(f"r{number}", 1)
        await books.settle(f"v{number}", 0, void=True)
        with pytest.raises(ResponseError):
            await books.run(scripts.SETTLE, ending_keys(f"r9{number}"), *settle_args(f"r9{number}", "settled", -1, 1))
        await books.admitted(f"a{number}", 10)
        await books.abandon(f"a{number}")
        await books.settle(f"a{number}", 3)
        await books.settle(f"o{number}", 1)
    events = (await books.picture())["usage"]
    assert [int(each["seq"]) for each in events] == list(range(1, len(events) + 1))
    assert len(events) == 20
    assert await books.get(META, "seq") == 20


async def test_accounts_of_a_partition_do_not_touch_each_other(books: Books) -> None:
    other: Any = books.of(account="acc2", key="key2", line="line2")
    await other.account(5)
    await other.key()
    before = await books.picture()
    await hot.admit(books.link, other.place, "r1", VERSIONS, Offer([5], 0))
    await other.settle("r1", 4)
    after = await books.picture()
    for name in ("acct:acc", "key:key"):
        assert after[name] == before[name]
    assert "line:line" not in after
