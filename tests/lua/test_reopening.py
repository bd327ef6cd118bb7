"""adopt and reopen, the fence of every script, and what a restart does to callers."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as Refused_
from redis.exceptions import ResponseError

from ledger import hot, scripts, takeover
from ledger.hot import Admitted, Ended, Fenced, Refused
from ledger.link import Link, Script, StoreUnavailable
from tests.conftest import valkey
from tests.lua.books import (
    ACCOUNT,
    CAP,
    DUE,
    EXPIRES,
    LINE,
    META,
    PLACE,
    USD,
    Books,
    P,
    admit_args,
    changed,
    complaint,
    ending_keys,
    hold_key,
)  # fmt: skip

LEASE = hot.LEASE_US
ADOPT_KEYS = ending_keys()[:5]


async def adopt(books: Books, charge: int = 10, short: int = 0, *, abandoned: bool = False) -> bool:
    return await takeover.adopt(
        books.link, PLACE, "r1", abandoned=abandoned, charge_nanos=charge, shortfall_nanos=short
    )


@pytest.mark.parametrize("abandoned", [False, True])
async def test_adopt_ends_a_live_hold_without_an_event(books: Books, abandoned: bool) -> None:
    await books.admitted("r1", 3 * USD)
    await takeover.reopen(books.link, P, "take", term=2)
    before = await books.picture()
    assert await adopt(books, 2 * USD, 7, abandoned=abandoned)
    after = await books.picture()
    state = "X" if abandoned else "S"
    assert after == changed(
        before,
        hold__r1={"st": state, "charge": str(2 * USD), "short": "7", EXPIRES: "yes"},
        due=None,
        acct__acc={"avail": str(8 * USD), "held": "0", "live": "0", "spent": str(2 * USD)},
        line__line={"live": "0", "dsum": str(2 * USD), "msum": str(2 * USD)},
    )
    assert not await adopt(books, 2 * USD, 7, abandoned=abandoned)
    assert await books.picture() == after


async def test_adopt_of_what_redis_never_saw(bare: Books) -> None:
    """In a rebuild the charges come before the grants: the balance is below zero until they are in."""
    await takeover.reopen(bare.link, P, "take", term=1)
    before = await bare.picture()
    assert await adopt(bare, 30, 5)
    assert await bare.picture() == changed(
        before,
        hold__r1={"st": "S", "charge": "30", "short": "5", EXPIRES: "yes"},
        acct__acc={"avail": "-30", "held": "0", "live": "0", "rt": "0", "tt": "0", "spent": "30"},
    )
    assert await bare.grant(3, 100) == "OK"
    assert await bare.get(ACCOUNT, "avail") == 70


async def test_adopt_of_a_late_event_adds_only_the_difference(bare: Books) -> None:
    await takeover.reopen(bare.link, P, "take", term=1)
    assert await adopt(bare, 30, abandoned=True)
    assert await adopt(bare, 50)
    assert not await adopt(bare, 30, abandoned=True)
    assert (await bare.get(ACCOUNT, "spent"), await bare.get(ACCOUNT, "avail")) == (50, -50)
    assert (await bare.picture())["hold:r1"] == {"st": "S", "charge": "50", "short": "0", EXPIRES: "yes"}


async def test_adopt_of_a_late_event_counts_for_the_caps_of_its_admit(books: Books) -> None:
    await books.admitted("r1", 100)
    await books.progress("r1", 30)
    await books.abandon()
    await takeover.reopen(books.link, P, "take", term=2)
    before = await books.picture()
    assert await adopt(books, 50)
    assert await books.picture() == changed(
        before,
        hold__r1={"st": "S", "charge": "50", "short": "0", EXPIRES: "yes"},
        acct__acc={"avail": str(10 * USD - 50), "spent": "50"},
        line__line={"dsum": "50", "msum": "50"},
    )


@pytest.mark.parametrize(("day", "month"), [(1, 0), (1, 1)])
@pytest.mark.parametrize("swept", [False, True])
async def test_adopt_leaves_the_caps_of_a_newer_period_alone(books: Books, swept: bool, day: int, month: int) -> None:
    await books.admitted("r1", 100)
    if swept:
        await books.abandon()
    await books.add(LINE, "day", day)
    await books.add(LINE, "month", month)
    await books.set(LINE, rt=5, tt=6, dsum=7, msum=700)
    await takeover.reopen(books.link, P, "take", term=2)
    before = await books.picture()
    assert await adopt(books, 30)
    msum = 700 if month else 730 - (0 if swept else 100)
    changes = {"live": "0", "msum": str(msum)}
    assert (await books.picture())["line:line"] == changed(before, line__line=changes)["line:line"]


async def test_after_adoption_a_settle_is_a_repeat_and_after_an_abandoned_one_late(bare: Books) -> None:
    await takeover.reopen(bare.link, P, "take", term=1)
    await adopt(bare, 30)
    await takeover.adopt(bare.link, PLACE, "r2", abandoned=True, charge_nanos=10, shortfall_nanos=0)
    await bare.open(term=2)
    await bare.account(100)
    assert await bare.settle("r1", 30) == Ended("repeat", 30, 0, 0)
    assert await bare.settle("r2", 25) == Ended("late", 15, 0, 1)
    assert await bare.get(ACCOUNT, "avail") == 45


async def test_adopt_is_only_for_a_rebuild(books: Books) -> None:
    await books.admitted()
    for state in ("open", "recover"):
        await books.set(META, state=state)
        before = await books.picture()
        with pytest.raises(Fenced):
            await adopt(books)
        assert await books.picture() == before


@pytest.mark.parametrize(
    "args", [("T", 1, 0), ("", 1, 0), ("S", "", 0), ("S", -1, 0), ("X", 1, "x"), ("S", CAP + 1, 0)]
)
async def test_adopt_malformed(books: Books, args: tuple[Any, ...]) -> None:
    await books.admitted()
    await takeover.reopen(books.link, P, "take", term=2)
    before = await books.picture()
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.ADOPT, ADOPT_KEYS, "r1", *args)
    assert await books.picture() == before


@pytest.mark.parametrize("key", ADOPT_KEYS)
async def test_adopt_wrong_types(books: Books, key: str) -> None:
    await books.admitted()
    await takeover.reopen(books.link, P, "take", term=2)
    await books.link.command("DEL", key)
    await books.link.command("SET", key, "text")
    before = await books.picture()
    with pytest.raises(ResponseError, match=complaint(key)):
        await adopt(books)
    assert await books.picture() == before


async def test_the_three_steps_of_reopening(books: Books) -> None:
    for rid, lease in (("soon", 1), ("later", 2 * LEASE)):
        await books.admitted(rid, 5, lease_us=lease)
    await books.settle("ended", 1)
    await books.set(META, server="another")
    before = await books.picture()
    [word, server] = await books.run(scripts.REOPEN, [META, DUE], "take", 7, LEASE, 0, 0, "")
    assert word == "OK"
    taken = changed(before, meta={"server": server, "state": "rebuild", "term": "7"})
    assert await books.picture() == taken
    common: Any = {"term": 7, "epoch": 4, "config": 9, "instance": "j"}
    assert await takeover.reopen(books.link, P, "recover", **common) == "OK"
    recovering = changed(taken, meta={"state": "recover", "epoch": "4", "seq": "0", "config": "9", "instance": "j"})
    assert await books.picture() == recovering
    earliest = await books.now()
    assert await takeover.reopen(books.link, P, "open", term=7) == "OK"
    due = (await books.picture())["due"]
    assert earliest + LEASE <= due["soon"] <= await books.now() + LEASE
    assert await books.picture() == changed(recovering, meta={"state": "open"}, due={"soon": due["soon"]})


async def test_a_resent_recover_does_not_count_from_nothing_again(books: Books) -> None:
    """A settle that was let in has number 1; the same step again must not give that number away twice."""
    await takeover.reopen(books.link, P, "take", term=2)
    common: Any = {"term": 2, "epoch": 2, "config": 1, "instance": "i"}
    assert await takeover.reopen(books.link, P, "recover", **common) == "OK"
    await books.settle("kept", 5)
    before = await books.picture()
    assert await takeover.reopen(books.link, P, "recover", **common) == "OK"
    assert await books.picture() == before


@pytest.mark.parametrize("step", ["take", "recover", "open"])
async def test_reopen_term(books: Books, step: Any) -> None:
    assert await takeover.reopen(books.link, P, "take", term=10) == "OK"
    before = await books.picture()
    assert await takeover.reopen(books.link, P, step, term=9, epoch=2) == "TERM"
    assert await books.picture() == before


async def test_reopen_lost(books: Books) -> None:
    """Steps out of order, a later leader, another server: begin again."""
    before = await books.picture()
    assert await takeover.reopen(books.link, P, "recover", term=1, epoch=2) == "LOST"  # it is open
    assert await takeover.reopen(books.link, P, "open", term=1) == "LOST"
    assert await takeover.reopen(books.link, P, "recover", term=2, epoch=2) == "LOST"  # not taken in this term
    assert await books.picture() == before
    await takeover.reopen(books.link, P, "take", term=3)
    before = await books.picture()
    assert await takeover.reopen(books.link, P, "open", term=3) == "LOST"  # settles have no epoch yet
    assert await books.picture() == before
    await books.set(META, server="another")
    before = await books.picture()
    for step in ("recover", "open"):
        assert await takeover.reopen(books.link, P, step, term=3, epoch=2) == "LOST"
    assert await books.picture() == before


@pytest.mark.parametrize(
    "args",
    [
        ("give", 2, LEASE, 2, 1, "i"), ("", 2, LEASE, 2, 1, "i"), ("take", "", LEASE, 2, 1, "i"),
        ("take", "x", LEASE, 2, 1, "i"), ("recover", 1, LEASE, "", 1, "i"), ("recover", 1, LEASE, 2, "x", "i"),
        ("recover", 1, "x", 2, 1, "i"),
    ],
)  # fmt: skip
async def test_reopen_malformed(books: Books, args: tuple[Any, ...]) -> None:
    await books.set(META, state="rebuild")
    before = await books.picture()
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.REOPEN, [META, DUE], *args)
    assert await books.picture() == before


@pytest.mark.parametrize("key", [META, DUE])
async def test_reopen_wrong_types(books: Books, key: str) -> None:
    await books.set(META, state="recover")
    await books.link.command("DEL", key)
    await books.link.command("SET", key, "text")
    before = await books.picture()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await takeover.reopen(books.link, P, "open", term=1)
    assert await books.picture() == before


CALLS: dict[str, Callable[[Books], Awaitable[Any]]] = {
    "admit": lambda b: b.admit("new"),
    "progress": lambda b: b.progress("r1", 1),
    "settle": lambda b: b.settle("r1", 1),
    "void": lambda b: b.settle("r1", 0, void=True),
    "sweep": lambda b: b.abandon("r1"),
    "grant": lambda b: b.grant(2, 20 * USD),
    "publish": lambda b: hot.publish(b.link, P, ACCOUNT, 2, {"status": "suspended"}),
    "adopt": adopt,
}
ALLOWED = {
    "open": {"admit", "progress", "settle", "void", "sweep", "grant", "publish"},
    "recover": {"progress", "settle", "void", "grant", "publish"},
    "rebuild": {"grant", "publish", "adopt"},
    "foreign": set[str](),
    "no meta": set[str](),
}


@pytest.mark.parametrize("state", ALLOWED)
@pytest.mark.parametrize("call", CALLS)
async def test_fence(books: Books, state: str, call: str) -> None:
    await books.admitted("r1")
    await books.make_due()
    if state == "foreign":
        await books.set(META, server="0" * 40)
    elif state == "no meta":
        await books.link.command("DEL", META)
    else:
        await books.set(META, state=state)
    before = await books.picture()
    if call in ALLOWED[state]:
        await CALLS[call](books)
        assert await books.picture() != before
    else:
        with pytest.raises(Fenced):
            await CALLS[call](books)
        assert await books.picture() == before


async def test_an_emptied_server_is_fenced_and_stays_empty(books: Books) -> None:
    await books.admitted("r1")
    await books.link.command("FLUSHALL")
    for call in CALLS.values():
        with pytest.raises(Fenced):
            await call(books)
    assert await books.picture() == {}


async def test_a_restarted_server_is_fenced_also_for_a_driver_that_sends_again(tmp_path: Path) -> None:
    """The same folder and port: everything is there, and nothing is served until it is opened again."""

    async def admit(client: Redis, rid: str) -> list[bytes]:
        keys = [META, "w1:{p5a}:key:key", ACCOUNT, LINE, hold_key(rid), DUE, "w1:{p5a}:usage"]
        return list(await client.eval(scripts.ADMIT.text.decode(), len(keys), *keys, *admit_args(rid, USD)))

    with valkey(tmp_path) as server:
        port = server.port
        retry = Retry(ConstantBackoff(0.02), 500)
        stubborn = Redis(port=port, retry=retry, retry_on_error=[Refused_])
        async with Link(server.url) as link:
            books = Books(link)
            await books.ready()
            await books.settle("r0", 5)
            await books.admitted("r1")
            assert (await admit(stubborn, "r2"))[0] == b"OK"
            before = await books.picture()
    again = asyncio.create_task(admit(stubborn, "r3"))
    with valkey(tmp_path, port=port) as server:
        assert await again == [b"FENCED"]
        async with Link(server.url) as link:
            books = Books(link)
            for call in CALLS.values():
                with pytest.raises(Fenced):
                    await call(books)
            await link.command("ZADD", DUE, "XX", before["due"]["r1"], "r1")  # the sweep's test made it due
            assert await books.picture() == before
            await books.open(term=2, epoch=2)
            assert (await admit(stubborn, "r3"))[0] == b"OK"
            assert await books.settle("r0", 5) == Ended("repeat", 5, 0, 0)
            assert await books.settle("r1", 7) == Ended("settled", 7, 0, 1)
            assert await books.get(ACCOUNT, "avail") == 10 * USD - 12 - 2 * USD
        await stubborn.aclose()


async def test_a_hundred_callers_against_money_for_ten(shared_url: str, bare: Books) -> None:
    links = [Link(shared_url, name=f"racer-{number}") for number in range(5)]
    async with links[0], links[1], links[2], links[3], links[4]:
        await bare.ready(10 * USD + USD - 1)
        callers = [Books(links[number % 5]).admit(f"r{number}") for number in range(100)]
        replies = await asyncio.gather(*callers)
    assert sum(isinstance(reply, Admitted) for reply in replies) == 10
    assert {reply for reply in replies if isinstance(reply, Refused)} == {Refused("FUNDS", (str(USD), str(USD - 1)))}
    assert await bare.get(ACCOUNT, "avail") == USD - 1
    assert await bare.get(ACCOUNT, "held") == 10 * USD
    assert await bare.get(ACCOUNT, "live") == await bare.link.command("ZCARD", DUE) == 10


async def test_a_hundred_callers_with_one_id_are_one_request(shared_url: str, bare: Books) -> None:
    links = [Link(shared_url) for _ in range(3)]
    async with links[0], links[1], links[2]:
        await bare.ready()
        replies = await asyncio.gather(*(Books(links[number % 3]).admitted("r1") for number in range(100)))
        assert len({(reply.choice, reply.amount_nanos, reply.at_us) for reply in replies}) == 1
        assert await bare.get(ACCOUNT, "held") == USD
        ends = await asyncio.gather(*(Books(links[n % 3]).settle("r1", 5 + n, void=False) for n in range(100)))
    first = [end for end in ends if isinstance(end, Ended) and end.end == "settled"]
    assert len(first) == 1
    assert all(isinstance(end, Ended) and end.charge_nanos == first[0].charge_nanos for end in ends)
    assert await bare.get(ACCOUNT, "avail") == 10 * USD - first[0].charge_nanos
    assert await bare.link.command("XLEN", "w1:{p5a}:usage") == 1


async def test_a_client_without_the_server_gets_an_error_and_not_an_answer(tmp_path: Path) -> None:
    with valkey(tmp_path) as server:
        url = server.url
    async with Link(url) as link:
        with pytest.raises(StoreUnavailable):
            await Books(link).admit()


def test_every_script_has_a_shebang_and_names_its_replies() -> None:
    # What only spends is refused by a full server, and what only looks may write nothing.
    special = {"admit": "#!lua", "debit": "#!lua", "look": "#!lua flags=no-writes"}
    for script in scripts.SCRIPTS:
        assert isinstance(script, Script)
        first, _, rest = script.text.decode().partition("\n")
        assert first == special.get(script.name, "#!lua flags=allow-oom")
        assert "-- KEYS 1 meta" in rest
