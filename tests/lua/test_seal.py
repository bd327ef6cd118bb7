"""seal: a floor under posting time. restore: absolute values for an emptied partition."""

from typing import Any

import pytest
from redis.exceptions import ResponseError

from ledger import hot, keyspace, scripts, takeover
from ledger.hot import Fenced
from ledger.lines import InUse
from ledger.postings import Posting
from ledger.takeover import Record
from tests.lua.books import (
    ACCOUNT,
    CAP,
    DUE,
    EXPIRES,
    KEY,
    LINE,
    META,
    PLACE,
    USAGE,
    USD,
    USED,
    Books,
    P,
    changed,
    hold_key,
)


async def _dates(books: Books) -> list[int]:
    found = []
    for _, flat in await books.link.command("XRANGE", USAGE, "-", "+"):
        fields = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
        found.append(Posting.read(fields).at_us)
    return found


async def test_seal_sets_the_floor_and_says_how_far_posting_has_come(books: Books) -> None:
    await books.admitted("r1")
    await books.settle("r1")
    before = await books.picture()
    assert await hot.seal(books.link, P, day_end_us=1_000) == (1, 1)
    sealed = changed(before, meta={"floor": "1000"})
    assert await books.picture() == sealed
    assert await hot.seal(books.link, P, day_end_us=1_000) == (1, 1)
    assert await hot.seal(books.link, P, day_end_us=999) == (1, 1)
    assert await books.picture() == sealed
    await books.admitted("r2")
    await books.settle("r2")
    assert await hot.seal(books.link, P, day_end_us=2_000) == (1, 2)
    assert await books.get(META, "floor") == 2_000


async def test_a_day_that_is_not_over_cannot_be_sealed(books: Books) -> None:
    """The leader's clock is wrong, or the server's was set back: nothing may be dated into the future."""
    before = await books.picture()
    assert await hot.seal(books.link, P, day_end_us=await books.now() + 60_000_000) is None
    assert await books.picture() == before


async def test_nothing_is_posted_below_the_floor(books: Books) -> None:
    """As after a clock that stepped back by a day: the floor is ahead of now."""
    for rid in ("settled", "abandoned"):
        await books.admitted(rid)
    await books.make_due("abandoned")
    floor = await books.now() + 86_400_000_000
    await books.set(META, floor=floor)
    await books.settle("settled")
    assert await books.sweep("abandoned") is not None
    await books.settle("abandoned", 2)
    await books.settle("orphan", 1)
    assert await _dates(books) == [floor] * 4


async def test_reopening_keeps_the_higher_floor(books: Books) -> None:
    for term, floor, expected in ((2, 500, 500), (3, 400, 500), (4, 600, 600)):
        await takeover.reopen(books.link, P, "take", term=term)
        assert await takeover.reopen(books.link, P, "recover", term=term, epoch=term, floor_us=floor) == "OK"
        assert await books.get(META, "floor") == expected


@pytest.mark.parametrize("state", ["recover", "rebuild", "foreign", "no meta"])
async def test_seal_fence(books: Books, state: str) -> None:
    if state == "no meta":
        await books.link.command("DEL", META)
    else:
        await books.set(META, **({"server": "0" * 40} if state == "foreign" else {"state": state}))
    before = await books.picture()
    with pytest.raises(Fenced):
        await hot.seal(books.link, P, day_end_us=1)
    assert await books.picture() == before


@pytest.mark.parametrize("args", [("",), ("x",), (-1,), (CAP + 1,)])
async def test_seal_malformed(books: Books, args: tuple[Any, ...]) -> None:
    before = await books.picture()
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.SEAL, [META], *args)
    assert await books.picture() == before


RECORDS = [
    Record(ACCOUNT, "money", (3, str(2**60), str(2**60 - 7 * USD), 4, "status", "active", "rpm", "60")),
    Record(KEY, "policy", (2, "status", "revoked")),
    Record(LINE, "line", (InUse(day=20000, spent_in_day=5, month=24000, spent_in_month=9).record(),)),
    Record(hold_key("r1"), "mark", ("S", 8, 1)),
    Record(hold_key("r2"), "mark", ("X", 2, 0)),
]


async def taken(bare: Books) -> None:
    assert await takeover.reopen(bare.link, P, "take", term=5) == "OK"


async def test_restore_is_absolute(bare: Books) -> None:
    await taken(bare)
    before = await bare.picture()
    for _ in range(2):  # an attempt that was cut off is simply made again
        assert await takeover.restore(bare.link, P, RECORDS, term=5) == "OK"
        money = {"credited": str(2**60), "spent": str(2**60 - 7 * USD), "avail": str(7 * USD), "grant": "3"}
        unused = {"held": "0", "live": "0", "rt": "0", "tt": "0"}
        assert await bare.picture() == changed(
            before,
            acct__acc={**money, **unused, "ver": "4", "status": "active", "rpm": "60"},
            key__key={"ver": "2", "status": "revoked"},
            line__line=dict(zip(USED, ["0", "0", "0", "20000", "5", "24000", "9"], strict=True)),
            hold__r1={"st": "S", "charge": "8", "short": "1", EXPIRES: "yes"},
            hold__r2={"st": "X", "charge": "2", "short": "0", EXPIRES: "yes"},
        )


async def test_a_mark_that_is_there_stays(bare: Books) -> None:
    await taken(bare)
    assert await takeover.restore(bare.link, P, RECORDS, term=5) == "OK"
    before = await bare.picture()
    assert await takeover.restore(bare.link, P, [Record(hold_key("r1"), "mark", ("X", 3, 0))], term=5) == "OK"
    assert await bare.picture() == before


async def test_what_came_into_force_meanwhile_stays(bare: Books) -> None:
    """A revoke that was answered with 200 while the partition was refilled is not undone by what was read before it."""
    await taken(bare)
    await hot.publish(bare.link, P, KEY, 3, {"status": "newer"})
    assert await bare.grant(4, 10 * USD + 5) == "OK"
    older = Record(ACCOUNT, "money", (3, str(10 * USD), str(3 * USD)))
    assert await takeover.restore(bare.link, P, [older, *RECORDS[1:]], term=5) == "OK"
    assert (await bare.picture())["key:key"] == {"ver": "3", "status": "newer"}
    account = (await bare.picture())["acct:acc"]
    assert (account["grant"], account["credited"], account["avail"]) == ("4", str(10 * USD + 5), str(7 * USD + 5))


async def test_restored_marks_make_repeats_of_what_is_sent_again(bare: Books) -> None:
    await taken(bare)
    await takeover.restore(bare.link, P, RECORDS, term=5)
    await takeover.reopen(bare.link, P, "recover", term=5, epoch=2)
    again = await bare.settle("r1", 9)
    late = await bare.settle("r2", 5)
    orphan = await bare.settle("r3", 1)
    ends = [(e.end, e.charge_nanos) for e in (again, late, orphan)]  # type: ignore[union-attr]
    assert ends == [("repeat", 8), ("late", 3), ("orphan", 1)]


async def test_restore_only_while_it_is_being_rebuilt(bare: Books) -> None:
    with pytest.raises(Fenced):
        await takeover.restore(bare.link, P, RECORDS, term=5)
    await taken(bare)
    before = await bare.picture()
    assert await takeover.restore(bare.link, P, RECORDS, term=4) == "TERM"
    assert await takeover.restore(bare.link, P, RECORDS, term=6) == "TERM"
    assert await bare.picture() == before
    for state in ("recover", "open"):
        await bare.set(META, state=state)
        with pytest.raises(Fenced):
            await takeover.restore(bare.link, P, RECORDS, term=5)


@pytest.mark.parametrize(
    "args",
    [
        ("money", 3, "1", "x", "2"), ("money", 9, "1", "2", "2"),
        ("money", 4, "1", "2", "2", "x"),
        ("money", 6, "1", "2", "2", "4", "rpm", "1.5"), ("policy", 3, "4", "mcap", "x"), ("policy", 3, "4", "rpm", ""),
        ("mark", 3, "S", "", "0"), ("policy", 1, "x"),
        ("what", 0), ("mark", "", "S", "1", "0"), ("line", 0), ("line", 1, "0 0 0 20000 5 24000 9"),
    ],
)  # fmt: skip
async def test_restore_malformed(bare: Books, args: tuple[Any, ...]) -> None:
    await taken(bare)
    before = await bare.picture()
    good = ("money", 3, "1", "5", "2")
    with pytest.raises(ResponseError, match="EARG"):
        await bare.run(scripts.RESTORE, [META, keyspace.account(P, "a"), ACCOUNT], 5, *good, *args)
    assert await bare.picture() == before


@pytest.mark.parametrize(
    ("command", "error"), [(("SET", hold_key("r2"), "text"), "EHOLD"), (("SADD", LINE, "a"), "WRONG")]
)
async def test_restore_wrong_type(bare: Books, command: tuple[str, ...], error: str) -> None:
    await taken(bare)
    await bare.link.command(*command)
    before = await bare.picture()
    with pytest.raises(ResponseError, match=error):
        await takeover.restore(bare.link, P, RECORDS, term=5)
    assert await bare.picture() == before


async def test_adopt_beyond_a_close_while_open(books: Books) -> None:
    await books.admitted("r1", 3 * USD)
    assert await takeover.adopt(
        books.link, PLACE, "r1", abandoned=False, charge_nanos=2 * USD, shortfall_nanos=0, beyond=True
    )
    assert (await books.get(ACCOUNT, "avail"), await books.get(ACCOUNT, "held")) == (8 * USD, 0)
    assert await books.link.command("EXISTS", DUE) == 0


async def test_an_account_below_zero_is_never_charged_less_than_nothing(books: Books) -> None:
    """What was adopted may be more than was left; a settle then is all shortfall, and not a gift."""
    await books.set(ACCOUNT, avail=-5)
    ended = await books.settle("r9", 3)
    assert (ended.charge_nanos, ended.shortfall_nanos) == (0, 3)  # type: ignore[union-attr]
    assert await books.get(ACCOUNT, "avail") == -5
