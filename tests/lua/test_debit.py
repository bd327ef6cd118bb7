"""debit: money out by its own script: covered or refused, once, and dated like every other event."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from ledger import hot, scripts
from ledger.hot import Debited, Fenced, Old, Refused
from ledger.postings import Posting
from tests.lua.books import ACCOUNT, CAP, EXPIRES, META, USAGE, USD, Books, P, changed, complaint, event, hold_key

KEYS = [META, ACCOUNT, hold_key("acc:d1"), USAGE]


async def debit(
    books: Books, amount: int = USD, debit_id: str = "acc:d1", *, asked_us: int | None = None
) -> Debited | Refused | Old:
    asked = await books.now() if asked_us is None else asked_us
    return await hot.debit(books.link, P, "acc", debit_id, amount_nanos=amount, event=b"event", asked_us=asked)


async def test_a_debit_is_posted_like_a_charge(books: Books) -> None:
    before = await books.picture()
    assert await debit(books, 3 * USD) == Debited(7 * USD, repeat=False)
    after = await books.picture()
    assert after == changed(
        before,
        meta={"seq": "1"},
        acct__acc={"avail": str(7 * USD), "spent": str(3 * USD)},
        usage=[event("debit", 3 * USD, rid="acc:d1")],
        **{"hold:acc:d1": {"st": "S", "charge": str(3 * USD), "short": "0", EXPIRES: "yes"}},
    )
    assert await debit(books, 3 * USD) == Debited(7 * USD, repeat=True)
    assert await debit(books, 1) == Debited(7 * USD, repeat=True)  # by its id, whatever else is said
    assert await books.picture() == after


async def test_what_is_held_cannot_be_paid_out(books: Books) -> None:
    await books.admitted("r1", 4 * USD, tokens=7)
    before = await books.picture()
    assert await debit(books, 6 * USD + 1, "acc:more") == Refused("FUNDS", (str(6 * USD + 1), str(6 * USD)))
    assert await debit(books, 6 * USD, "acc:all") == Debited(0, repeat=False)
    account = (await books.picture())["acct:acc"]
    assert account == before["acct:acc"] | {"avail": "0", "spent": str(6 * USD)}
    await books.settle("r1", 1)
    assert await books.get(ACCOUNT, "avail") == 4 * USD - 1
    assert await books.get(ACCOUNT, "spent") == 6 * USD + 1


async def test_a_refusal_stays_one_when_money_comes_in(books: Books) -> None:
    """It was answered; a worker that tries again later must not pay out what the operator believes refused."""
    refused = await debit(books, 11 * USD)
    assert refused == Refused("FUNDS", (str(11 * USD), str(10 * USD)))
    assert await books.grant(2, 100 * USD) == "OK"
    before = await books.picture()
    assert await debit(books, 11 * USD) == refused
    assert await books.picture() == before
    assert await debit(books, 11 * USD, "acc:d2") == Debited(89 * USD, repeat=False)


async def test_parallel_debits_never_overdraw(books: Books) -> None:
    ids = [f"acc:{n}" for n in range(100)]
    answers = await asyncio.gather(*(debit(books, USD, debit_id) for debit_id in ids))
    assert sum(isinstance(answer, Debited) for answer in answers) == 10
    assert (await books.get(ACCOUNT, "avail"), await books.get(ACCOUNT, "spent")) == (0, 10 * USD)
    assert await books.get(META, "seq") == 10


async def test_one_that_is_too_old_to_be_sure_is_for_mongodb(books: Books) -> None:
    before = await books.picture()
    assert await debit(books, asked_us=await books.now() - 56 * 60_000_000) == Old()
    assert await books.picture() == before
    assert await debit(books, asked_us=await books.now() - 54 * 60_000_000) == Debited(9 * USD, repeat=False)
    assert await debit(books, asked_us=0) == Debited(9 * USD, repeat=True)  # known: a repeat at any age


async def test_it_is_dated_not_before_the_floor(books: Books) -> None:
    floor = await books.now() + 10**12
    await books.set(META, floor=floor)
    await debit(books)
    [[_, fields]] = await books.link.command("XRANGE", USAGE, "-", "+")
    pairs = dict(zip(fields[::2], fields[1::2], strict=True)) if isinstance(fields, list) else fields
    assert Posting.read(pairs).at_us == floor


async def test_an_account_that_is_not_known_has_nothing(books: Books) -> None:
    other = hot.debit(books.link, P, "nobody", "nobody:1", amount_nanos=1, event=b"e", asked_us=await books.now())
    assert await other == Refused("FUNDS", ("1", "0"))


@pytest.mark.parametrize("state", ["recover", "rebuild", "foreign", "no meta"])
async def test_debit_fence(books: Books, state: str) -> None:
    if state == "foreign":
        await books.set(META, server="0" * 40)
    elif state == "no meta":
        await books.link.command("DEL", META)
    else:
        await books.set(META, state=state)
    before = await books.picture()
    with pytest.raises(Fenced):
        await debit(books)
    assert await books.picture() == before


@pytest.mark.parametrize(
    "args", [("", "e", 1), (-1, "e", 1), (0, "e", 1), (CAP + 1, "e", 1), (1, "e", ""), (1, "e", "x")]
)
async def test_debit_malformed(books: Books, args: tuple[Any, ...]) -> None:
    before = await books.picture()
    with pytest.raises(ResponseError, match="EARG"):
        await books.run(scripts.DEBIT, KEYS, "acc:d1", *args)
    assert await books.picture() == before


@pytest.mark.parametrize("key", KEYS)
async def test_debit_wrong_types(books: Books, key: str) -> None:
    await books.link.command("DEL", key)
    await books.link.command("SET", key, "text")
    before = await books.picture()
    with pytest.raises(ResponseError, match=complaint(key)):
        await debit(books)
    assert await books.picture() == before


async def test_a_full_server_pays_nothing_out(books: Books) -> None:
    await books.link.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(OutOfMemoryError):
        await debit(books)
    await books.link.command("CONFIG", "SET", "maxmemory", "0")
    assert await books.get(ACCOUNT, "avail") == 10 * USD
