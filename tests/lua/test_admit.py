"""admit: each word that it answers, and the whole partition after it."""

import math
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from ledger import hot, scripts
from ledger.hot import Admitted, Fenced, Refused, Versions
from tests.lua.books import (
    ACCOUNT,
    CAP,
    DUE,
    FUTURE,
    KEY,
    LINE,
    META,
    USAGE,
    USD,
    Books,
    admit_args,
    admit_keys,
    changed,
    complaint,
)
from tests.lua.books import hold_key as hold


async def test_ok_holds_the_money(books: Books) -> None:
    before = await books.picture()
    reply = await books.admitted("r1", 3 * USD, tokens=7, keep=5)
    assert reply == Admitted(0, 3 * USD, reply.at_us, 0, 0, 0, 0)
    now = str(reply.at_us)
    line = (await books.picture())["line:line"]
    assert int(line["day"]) == reply.at_us // 86_400_000_000
    periods = {"day": line["day"], "month": line["month"]}
    assert await books.picture() == changed(
        before,
        hold__r1={
            "st": "L", "n": "1", "amt": str(3 * USD), "at": now, "used": "0", "tokens": "7", "lus": "0", "aus": "0",
            **periods, "keep": "5", "who": "acc key line", "facts": "facts",
        },
        due={"r1": reply.at_us + hot.LEASE_US},
        acct__acc={"avail": str(7 * USD), "held": str(3 * USD), "live": "1", "rt": now, "tt": now},
        line__line={
            "live": "1", "rt": now, "tt": now, **periods, "dsum": str(3 * USD), "msum": str(3 * USD),
        },
    )  # fmt: skip


async def test_a_repeat_answers_the_first_result_and_changes_nothing(books: Books) -> None:
    first = await books.admitted("r1", 20 * USD, 3 * USD, 2 * USD)
    before = await books.picture()
    await books.set(META, config="9")
    again = await books.admit("r1", 20 * USD, 9 * USD)
    await books.set(META, config="1")
    assert first.choice == 2
    assert again == first
    assert await books.picture() == before


@pytest.mark.parametrize("end", ["settled", "voided", "abandoned", "never begun"])
async def test_ended(books: Books, end: str) -> None:
    if end != "never begun":
        await books.admitted()
    if end == "abandoned":
        await books.abandon()
    else:
        await books.settle("r1", 0 if end != "settled" else 5, void=end != "settled")
    before = await books.picture()
    assert await books.admit() == Refused("ENDED", ())
    assert await books.picture() == before


@pytest.mark.parametrize("versions", [Versions(2, 1, 1), Versions(1, 2, 1), Versions(1, 1, 2), Versions(0, 1, 1)])
async def test_stale(books: Books, versions: Versions) -> None:
    before = await books.picture()
    assert await books.admit(versions=versions) == Refused("STALE", ())
    assert await books.picture() == before


async def test_an_unknown_key_or_account_is_stale(books: Books) -> None:
    before = await books.picture()
    assert await books.of(key="other").admit() == Refused("STALE", ())
    assert await books.of(account="other").admit() == Refused("STALE", ())
    assert await books.picture() == before


BOTH_SPENT = {"day": 99999, "month": 99999, "dsum": 5, "msum": 5}
REFUSALS: list[tuple[Refused, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # refusal, then fields of the key, the account and the line
    (Refused("REVOKED", ()), {"status": "revoked"}, {}, {}),
    (Refused("EXPIRED", ()), {"exp": 1}, {}, {}),
    (Refused("EXPIRED", ()), {"exp": 0}, {}, {}),
    (Refused("SUSPENDED", ("suspended",)), {}, {"status": "suspended"}, {}),
    (Refused("SUSPENDED", ("closed",)), {}, {"status": "closed"}, {}),
    (Refused("CONCURRENCY", ("key", "2")), {"conc": 2}, {}, {"live": 2}),
    (Refused("CONCURRENCY", ("key", "0")), {"conc": 0}, {}, {}),
    (Refused("CONCURRENCY", ("account", "0")), {}, {"conc": 0}, {}),
    (Refused("CONCURRENCY", ("account", "2")), {}, {"conc": 2, "live": 2}, {"live": 1}),
    (Refused("CAP", ("day", str(USD), str(USD - 1))), {"dcap": USD + 4}, {}, {"day": 99999, "dsum": 5}),
    (Refused("CAP", ("month", str(USD), str(USD - 1))), {"mcap": USD + 4}, {}, {"month": 99999, "msum": 5}),
    (Refused("CAP", ("month", str(USD), "3")), {"dcap": 9, "mcap": 8}, {}, BOTH_SPENT),
    (Refused("CAP", ("day", str(USD), "3")), {"dcap": 8, "mcap": 9}, {}, BOTH_SPENT),
    (Refused("CAP", ("day", str(USD), "0")), {"dcap": 4}, {}, {"day": 99999, "dsum": 5}),
    (Refused("CAP", ("day", str(USD), "0")), {"dcap": 0}, {}, {}),
    (Refused("CAP", ("month", str(USD), "0")), {"mcap": 0}, {}, {}),
    (Refused("FUNDS", (str(USD), str(USD - 1))), {}, {"avail": USD - 1}, {}),
    (Refused("FUNDS", (str(USD), "0")), {"dcap": 0}, {"avail": 0}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("refusal", "key", "account", "line"), REFUSALS)
async def test_refusals_change_nothing(
    books: Books, refusal: Refused, key: dict[str, Any], account: dict[str, Any], line: dict[str, Any]
) -> None:
    await books.set(KEY, **key)
    await books.set(ACCOUNT, **account)
    await books.set(LINE, **line)
    before = await books.picture()
    assert await books.admit() == refusal
    assert await books.picture() == before


@pytest.mark.parametrize(
    ("key", "account", "line"),
    [
        ({"exp": FUTURE, "conc": 3}, {"conc": 5, "live": 4}, {"live": 2}),
        ({"dcap": USD + 5, "mcap": USD + 6}, {"avail": USD}, {"day": 99999, "month": 99999, "dsum": 5, "msum": 6}),
        ({"dcap": USD, "mcap": USD}, {}, {"day": 1, "month": 1, "dsum": CAP, "msum": CAP}),  # periods that passed
    ],
)
async def test_at_the_limit_is_admitted(
    books: Books, key: dict[str, Any], account: dict[str, Any], line: dict[str, Any]
) -> None:
    await books.set(KEY, **key)
    await books.set(ACCOUNT, **account)
    await books.set(LINE, **line)
    assert (await books.admitted()).amount_nanos == USD


async def test_a_free_request_is_admitted_without_money_and_beyond_a_cap(books: Books) -> None:
    """A charge above its hold, or a cap that was lowered, leaves more spent than the cap; what costs nothing still may."""
    await books.set(ACCOUNT, avail=0)
    await books.set(KEY, dcap=4)
    await books.set(LINE, day=99999, dsum=5)
    assert (await books.admitted("r1", 0)).amount_nanos == 0


async def test_backlog(books: Books) -> None:
    for seq in range(3):
        await books.link.command("XADD", USAGE, "*", "seq", seq, "at", await books.now())
    before = await books.picture()
    assert await books.run(scripts.ADMIT, admit_keys(), *admit_args("r1", USD, bound=3)) == ["BACKLOG"]
    assert await books.picture() == before
    assert (await books.run(scripts.ADMIT, admit_keys(), *admit_args("r1", USD, bound=4)))[0] == "OK"


NO_NUMBERS = (-1, 1.5, -0.5, CAP + 1, math.nan, math.inf, -math.inf)


@pytest.mark.parametrize(
    "malformed",
    [
        *({name: value} for name in ("key", "account", "lease", "tokens", "bound") for value in NO_NUMBERS),
        *({"keep": value} for value in ("", "-1", "1.5", "1e3", "x", str(CAP + 1), "nan", "keep", "0x10")),
    ],
)
async def test_malformed_arguments_change_nothing(books: Books, malformed: dict[str, Any]) -> None:
    before = await books.picture()
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.ADMIT, admit_keys(), *admit_args("r1", USD, USD, **malformed))
    assert await books.picture() == before


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("value", NO_NUMBERS)
async def test_a_malformed_amount_changes_nothing(books: Books, place: int, value: float) -> None:
    """Also one that would not be looked at, since a dearer one fits."""
    before = await books.picture()
    amounts: list[float] = [USD, USD, USD]
    amounts[place] = value
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.ADMIT, admit_keys(), *admit_args("r1", *amounts))
    assert await books.picture() == before


@pytest.mark.parametrize("size", [*range(8), 39, 40, 47, 49, 55])
async def test_numbers_that_are_missing_or_cut_short_are_malformed(books: Books, size: int) -> None:
    """Five numbers and an amount are 48 bytes."""
    before = await books.picture()
    *words, numbers = admit_args("r1", USD, USD)
    assert isinstance(numbers, bytes)
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.ADMIT, admit_keys(), *words, numbers[:size])
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.ADMIT, admit_keys(), *words)
    assert await books.picture() == before


@pytest.mark.parametrize("key", [META, KEY, ACCOUNT, LINE, hold(), DUE, USAGE])
async def test_wrong_types_change_nothing(books: Books, key: str) -> None:
    await books.link.command("DEL", key)
    await books.link.command("SET", key, "text")
    before = await books.picture()
    with pytest.raises(ResponseError, match=complaint(key)):
        await books.admit()
    assert await books.picture() == before


async def test_out_of_memory_refuses_and_changes_nothing(books: Books) -> None:
    before = await books.picture()
    await books.link.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(OutOfMemoryError):
        await books.admit()
    assert await books.picture() == before


@pytest.mark.parametrize(
    ("avail", "amounts", "choice"),
    [
        (100, (10, 5, 1), 0),  # ten times fits
        (99, (10, 9, 1), 1),
        (99, (10, 1), 1),
        (50, (10, 6, 40), 2),  # none fits ten times: the floor, if it is covered
        (50, (10, 50), 1),
        (50, (60, 51), None),
        (50, (50,), 0),  # one amount is a floor: no ten times
        (0, (1, 0), 1),
        (0, (0,), 0),
        (0, (0, 0), 0),
        (0, (1,), None),
        (CAP, (CAP,), 0),
        (CAP, (CAP, CAP // 10, 1), 1),
        (CAP - 1, (CAP,), None),
    ],
)
async def test_the_largest_amount_of_which_ten_fit_else_the_floor(
    bare: Books, avail: int, amounts: tuple[int, ...], choice: int | None
) -> None:
    await bare.ready(avail)
    before = await bare.picture()
    reply = await bare.admit("r1", *amounts)
    if choice is None:
        assert reply == Refused("FUNDS", (str(amounts[-1]), str(avail)))
        assert await bare.picture() == before
        return
    assert isinstance(reply, Admitted)
    assert (reply.choice, reply.amount_nanos) == (choice, amounts[choice])
    assert await bare.get(ACCOUNT, "avail") == avail - amounts[choice]
    assert await bare.get(ACCOUNT, "held") == amounts[choice]


async def test_what_a_cap_leaves_decides_the_choice_too(books: Books) -> None:
    await books.set(KEY, dcap=100, mcap=70)
    assert (await books.admitted("r1", 10, 7, 1)).choice == 1
    assert (await books.admitted("r2", 10, 7, 63)).choice == 2  # 63 are left: 7 held, so no ten times 7
    assert await books.admit("r3", 1) == Refused("CAP", ("month", "1", "0"))


async def test_fenced_comes_before_everything(books: Books) -> None:
    await books.admitted()
    await books.set(META, server="another")
    before = await books.picture()
    with pytest.raises(Fenced):
        await books.admit()
    assert await books.run(scripts.ADMIT, admit_keys(), "r1", *["x"] * 5) == ["FENCED"]
    assert await books.picture() == before


async def test_concurrency_counts_live_holds_of_the_lineage_and_of_the_account(books: Books) -> None:
    await books.set(KEY, conc=2)
    await books.set(ACCOUNT, conc=3)
    other = books.of(key="key2", line="line2")
    await other.key()
    await books.admitted("r1")
    await books.admitted("r2")
    assert await books.admit("r3") == Refused("CONCURRENCY", ("key", "2"))
    await other.admitted("r4")
    assert await other.admit("r5") == Refused("CONCURRENCY", ("account", "3"))
    await books.settle("r1", 0, void=True)
    await books.admitted("r6")
    await books.abandon("r2")
    await books.admitted("r7")
    assert (await books.get(LINE, "live"), await books.get(ACCOUNT, "live")) == (2, 3)
