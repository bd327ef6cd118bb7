"""progress, sweep, grant, publish and look: each word, and the whole partition after it."""

from typing import Any, Literal

import pytest
from redis.exceptions import ResponseError

from ledger import hot, scripts, takeover
from ledger.hot import Ended
from tests.lua.books import (
    ACCOUNT,
    CAP,
    DUE,
    EXPIRES,
    KEY,
    LINE,
    META,
    USAGE,
    USD,
    Books,
    P,
    changed,
    complaint,
    ending_keys,
    event,
    hold_key,
)  # fmt: skip

PROGRESS_KEYS = [META, hold_key(), DUE]
GRANT_KEYS = [META, ACCOUNT]
LIMITS = ("rpm", "tpm", "conc", "dcap", "mcap", "exp", "free")


async def spoil(books: Books, key: str) -> None:
    await books.link.command("DEL", key)
    await books.link.command("SET", key, "text")


@pytest.mark.parametrize(("used", "word"), [(0, "OK"), (99, "OK"), (100, "STOP"), (101, "STOP"), (CAP, "STOP")])
async def test_progress_renews_and_reports(books: Books, used: int, word: str) -> None:
    await books.admitted("r1", 100)
    before = await books.picture()
    earliest = await books.now()
    assert await books.progress("r1", used, lease_us=90_000_000) == word
    after = await books.picture()
    assert earliest + 90_000_000 <= after["due"]["r1"] <= await books.now() + 90_000_000
    assert after == changed(before, hold__r1={"used": str(used)}, due=after["due"])


async def test_progress_never_takes_use_back(books: Books) -> None:
    await books.admitted("r1", 100)
    await books.progress("r1", 50)
    assert await books.progress("r1", 20) == "OK"
    assert (await books.hold())["used"] == "50"


async def test_progress_of_a_free_request_never_stops_it(books: Books) -> None:
    await books.admitted("r1", 0)
    assert await books.progress("r1", 0) == "OK"


@pytest.mark.parametrize("end", ["never begun", "settled", "abandoned"])
async def test_progress_gone(books: Books, end: str) -> None:
    if end != "never begun":
        await books.admitted()
        await (books.settle() if end == "settled" else books.abandon())
    before = await books.picture()
    assert await books.progress("r1", 5) == "GONE"
    assert await books.picture() == before


@pytest.mark.parametrize("args", [("", 1), ("-1", 1), ("1.5", 1), (str(CAP + 1), 1), (1, ""), (1, "x")])
async def test_progress_malformed(books: Books, args: tuple[Any, Any]) -> None:
    await books.admitted()
    before = await books.picture()
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.PROGRESS, PROGRESS_KEYS, "r1", *args)
    assert await books.picture() == before


@pytest.mark.parametrize("key", PROGRESS_KEYS)
async def test_progress_wrong_types(books: Books, key: str) -> None:
    await books.admitted()
    await spoil(books, key)
    before = await books.picture()
    with pytest.raises(ResponseError, match=complaint(key)):
        await books.progress("r1", 5)
    assert await books.picture() == before


@pytest.mark.parametrize(
    ("keep", "used", "charge"),
    [(0, 0, 0), (0, 40, 40), (70, 40, 70), (70, 90, 90), ("hold", 40, 100), ("hold", 130, 130), (CAP, 0, None)],
)
async def test_sweep_charges_what_was_reported_or_is_kept(
    books: Books, keep: int | Literal["hold"], used: int, charge: int | None
) -> None:
    await books.admitted("r1", 100, keep=keep)
    await books.progress("r1", used)
    await books.make_due()
    before = await books.picture()
    charged, short = (10 * USD, CAP - 10 * USD) if charge is None else (charge, 0)
    assert await books.sweep() == Ended("abandoned", charged, short, 1)
    after = await books.picture()
    assert after == changed(
        before,
        meta={"seq": "1"},
        hold__r1={"st": "X", EXPIRES: "yes", "charge": str(charged), "short": str(short)},
        due=None,
        acct__acc={"avail": str(10 * USD - charged), "held": "0", "live": "0", "spent": str(charged)},
        line__line={"live": "0", "dsum": str(charged), "msum": str(charged)},
        usage=[event("abandoned", charged, hold=100, short=short, event="facts")],
    )
    assert await books.sweep() is None
    assert await books.picture() == after


async def test_sweep_not_due(books: Books) -> None:
    await books.admitted()
    before = await books.picture()
    assert await books.run(scripts.SWEEP, ending_keys(), "r1") == ["NOT_DUE"]
    assert await books.picture() == before


@pytest.mark.parametrize("end", ["never begun", "settled", "abandoned"])
async def test_sweep_gone_removes_only_the_stray_deadline(books: Books, end: str) -> None:
    if end != "never begun":
        await books.admitted()
        await (books.settle() if end == "settled" else books.abandon())
    before = await books.picture()
    await books.link.command("ZADD", DUE, 1, "r1")
    assert await books.run(scripts.SWEEP, ending_keys(), "r1") == ["GONE"]
    assert await books.picture() == before


@pytest.mark.parametrize("key", [META, ACCOUNT, LINE, hold_key(), DUE, USAGE])
async def test_sweep_wrong_types(books: Books, key: str) -> None:
    await books.admitted("r1", lease_us=0)
    await spoil(books, key)
    before = await books.picture()
    with pytest.raises(ResponseError, match=complaint(key)):
        await books.sweep()
    assert await books.picture() == before


async def test_grant_sets_the_total_and_moves_the_balance(books: Books) -> None:
    await books.admitted("r1", 3 * USD)
    before = await books.picture()
    assert await books.run(scripts.GRANT, GRANT_KEYS, 2, 15 * USD) == ["OK", str(12 * USD)]
    after = await books.picture()
    assert after == changed(before, acct__acc={"grant": "2", "credited": str(15 * USD), "avail": str(12 * USD)})
    for number, credited in ((2, 15 * USD), (2, 99 * USD), (1, 10 * USD), (0, 0)):
        assert await books.run(scripts.GRANT, GRANT_KEYS, number, credited) == ["REPEAT", str(12 * USD)]
    assert await books.picture() == after


async def test_grants_out_of_order_add_up(books: Books) -> None:
    """The totals are absolute: one that arrives late is a repeat, and one that is skipped is contained in the next."""
    assert await books.grant(5, 50 * USD) == "OK"
    assert await books.grant(3, 30 * USD) == "REPEAT"
    assert await books.get(ACCOUNT, "avail") == 50 * USD


async def test_grant_range(books: Books) -> None:
    await books.admitted("r1", 3 * USD)
    before = await books.picture()
    assert await books.grant(2, CAP + 1) == "RANGE"
    assert await books.grant(2, 2**63 - 1) == "RANGE"
    assert await books.grant(2, 10**30) == "RANGE"
    assert await books.picture() == before
    assert await books.grant(2, CAP) == "OK"
    assert (await books.get(ACCOUNT, "avail"), await books.get(ACCOUNT, "held")) == (CAP - 3 * USD, 3 * USD)


@pytest.mark.parametrize("start", [0, 999_999_999, 10**9, CAP, CAP + 1, 2**63 - 1 - CAP, 9_199_999_999_999_999_999])
@pytest.mark.parametrize("more", [0, 1, 999_999_999, 10**9, CAP - 1, CAP])
async def test_credited_beyond_2_53_is_exact(books: Books, start: int, more: int) -> None:
    await books.set(ACCOUNT, credited=start, avail=0)
    assert await books.grant(2, start + more) == "OK"
    assert (await books.get(ACCOUNT, "credited"), await books.get(ACCOUNT, "avail")) == (start + more, more)


@pytest.mark.parametrize(
    ("number", "credited"),
    [
        ("", 1),
        ("-1", 1),
        ("1.5", 1),
        ("x", 1),
        (CAP + 1, 1),
        (2, ""),
        (2, "-5"),
        (2, "1.5"),
        (2, "1e9"),
        (2, 10 * USD - 1),
    ],
)
async def test_grant_malformed_or_money_out(books: Books, number: Any, credited: Any) -> None:
    before = await books.picture()
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.GRANT, GRANT_KEYS, number, credited)
    assert await books.picture() == before


@pytest.mark.parametrize("key", GRANT_KEYS)
async def test_grant_wrong_types(books: Books, key: str) -> None:
    await spoil(books, key)
    before = await books.picture()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await books.grant(2, 99 * USD)
    assert await books.picture() == before


async def test_publish_puts_a_newer_version_in_force(books: Books) -> None:
    await books.set(KEY, rpm=5, tpm=6)
    before = await books.picture()
    assert await hot.publish(books.link, P, KEY, 2, {"status": "revoked", "rpm": "", "conc": "3", "mcap": ""})
    after = await books.picture()
    assert after == changed(before, key__key={"ver": "2", "status": "revoked", "rpm": None, "conc": "3"})
    for version in (2, 1, 0):
        assert not await hot.publish(books.link, P, KEY, version, {"status": "active"})
    assert await books.picture() == after


async def test_publish_compares_numbers_and_not_text(books: Books) -> None:
    assert await hot.publish(books.link, P, KEY, 9, {})
    assert await hot.publish(books.link, P, KEY, 10, {})
    assert not await hot.publish(books.link, P, KEY, 9, {})


@pytest.mark.parametrize("key", [KEY, ACCOUNT])
async def test_a_gate_says_what_the_fields_say(books: Books, key: str) -> None:
    """The picture compares them."""
    limits = {name: str(n) for n, name in enumerate(LIMITS, start=5) if name != ("free" if key == KEY else "exp")}
    for version, fields in enumerate(
        ({**limits, "status": "suspended"}, {"rpm": "", "status": "active"}, {"conc": "0"}), 2
    ):
        assert await hot.publish(books.link, P, key, version, fields)
        await books.picture()
    for name in limits:
        assert await hot.publish(books.link, P, key, version := version + 1, {name: ""})
        await books.picture()


async def test_publish_config_leaves_the_rest_of_meta(books: Books) -> None:
    before = await books.picture()
    assert await hot.publish(books.link, P, META, 7, {})
    assert await books.picture() == changed(before, meta={"config": "7"})


async def test_publish_never_touches_a_balance(books: Books) -> None:
    await books.admitted("r1", 3 * USD)
    before = await books.picture()
    assert await hot.publish(books.link, P, ACCOUNT, 2, {"status": "suspended"})
    assert await books.picture() == changed(before, acct__acc={"ver": "2", "status": "suspended"})


@pytest.mark.parametrize(
    "args",
    [
        ("ver", ""), ("ver", "-1"), ("ver", "x"), ("ver", "1.5"), ("ver", 2, "status"),
        *(("ver", 2, "status", "active", limit, value) for limit in LIMITS for value in ("-1", "x", "1.5", str(CAP + 1))),
        ("ver", 2, "rpm", "0"), ("ver", 2, "tpm", "0"),
    ],
)  # fmt: skip
async def test_publish_malformed(books: Books, args: tuple[Any, ...]) -> None:
    before = await books.picture()
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.PUBLISH, [META, KEY], *args)
    assert await books.picture() == before


@pytest.mark.parametrize("key", [META, KEY])
async def test_publish_wrong_types(books: Books, key: str) -> None:
    await spoil(books, key)
    before = await books.picture()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await hot.publish(books.link, P, KEY, 2, {"status": "revoked"})
    assert await books.picture() == before


async def test_look_sees_a_key_its_account_and_the_config(books: Books) -> None:
    await books.key(version=2, acct="acc", line="line", digest="d", pepper="1", policy="{}", rpm=7)
    before = await books.picture()
    seen = await hot.look(books.link, P, "key")
    assert seen.config == 1
    assert seen.key == [b"d", b"1", b"acc", b"line", b"2", b"{}", b"7", None, b"active", None]
    assert seen.account == [b"1", None, b"active"]
    assert await books.picture() == before


async def test_look_sees_nothing_where_nothing_is(books: Books) -> None:
    assert await hot.look(books.link, P, "nobody") == hot.Seen(1, [None] * 10, [None] * 3)
    await books.key(version=2, acct="gone")
    assert (await hot.look(books.link, P, "key")).account == [None] * 3


FORMER = "H 1 1000000 1700000000000000 0 100 6 6 20000 24000 - hold acc key line facts of an earlier build's request"


@pytest.mark.parametrize("value", ["text", "L" + "x" * 79, FORMER], ids=["text", "cut short", "of an earlier build"])
@pytest.mark.parametrize("call", ["admit", "settle", "progress", "sweep", "adopt"])
async def test_a_hold_that_cannot_be_read_moves_no_money(books: Books, call: str, value: str) -> None:
    await books.admitted("r1")
    await books.make_due()
    await books.link.command("SET", hold_key(), value)
    if call == "adopt":
        await takeover.reopen(books.link, P, "take", term=2)
    dump = [await books.link.command("DUMP", key) for key in (META, ACCOUNT, LINE, hold_key(), DUE)]
    if call == "adopt":
        asked = takeover.adopt(books.link, books.place, "r1", abandoned=False, charge_nanos=1, shortfall_nanos=0)
    else:
        asked = getattr(books, call)()
    with pytest.raises(ResponseError, match="EHOLD"):
        await asked
    assert [await books.link.command("DUMP", key) for key in (META, ACCOUNT, LINE, hold_key(), DUE)] == dump
