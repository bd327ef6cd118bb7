"""Records of numbers that cannot be read: nothing is admitted, charged, credited or paid out, and nothing changes."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from ledger import balances, hot, takeover
from ledger.balances import Balance
from tests.lua.books import ACCOUNT, DUE, KEY, LINE, PLACE, USD, Books, P, hold_key

FULL = Balance(USD).record()
GATE = bytes(56)
Call = Callable[[Books], Awaitable[Any]]


async def _debit(books: Books) -> Any:
    return await hot.debit(books.link, P, "acc", "d1", amount_nanos=1, event=b"e", asked_us=await books.now())


MOVES: dict[str, Call] = {
    "admit": lambda books: books.admit("r2"),
    "settle": lambda books: books.settle("r1", 5),
    "void": lambda books: books.settle("r1", 0, void=True),
    "orphan": lambda books: books.settle("r3", 5),
    "sweep": lambda books: books.sweep("r1"),
    "grant": lambda books: books.grant(2, 11 * USD),
    "debit": _debit,
    "adopt": lambda books: takeover.adopt(
        books.link, PLACE, "r1", abandoned=False, charge_nanos=1, shortfall_nanos=0, beyond=True
    ),
}


async def _dumped(books: Books) -> dict[bytes, bytes]:
    return {key: await books.link.command("DUMP", key) for key in await books.link.command("KEYS", "*")}


@pytest.mark.parametrize("damaged", [b"", b"0", FULL[:-1], FULL + b"\0", FULL + FULL, b"9" * 41])
@pytest.mark.parametrize("move", MOVES)
async def test_a_balance_that_cannot_be_read_moves_no_money(books: Books, move: str, damaged: bytes) -> None:
    await books.admitted()
    await books.make_due()
    await books.link.command("HSET", ACCOUNT, balances.FIELD, damaged)
    before = await _dumped(books)
    with pytest.raises(ResponseError, match="EBALANCE"):
        await MOVES[move](books)
    assert await _dumped(books) == before


@pytest.mark.parametrize("damaged", [b"", b"active", GATE[:-1]])
@pytest.mark.parametrize("key", [KEY, ACCOUNT])
async def test_a_gate_that_cannot_be_read_admits_nothing(books: Books, key: str, damaged: bytes) -> None:
    await books.link.command("HSET", key, "gate", damaged)
    before = await _dumped(books)
    with pytest.raises(ResponseError):
        await books.admit()
    assert await _dumped(books) == before


@pytest.mark.parametrize("key", [KEY, ACCOUNT])
async def test_without_a_gate_the_gateway_is_to_look_again(books: Books, key: str) -> None:
    await books.link.command("HDEL", key, "gate")
    reply = await books.admit()
    assert isinstance(reply, hot.Refused)
    assert reply.word == "STALE"


async def test_admit_never_writes_over_a_hold_of_another_type(books: Books) -> None:
    """`MGET` says of it that there is nothing."""
    await books.link.command("HSET", hold_key("r1"), "st", "H", "amt", 1000)
    before = await _dumped(books)
    with pytest.raises(ResponseError, match="EHOLD"):
        await books.admit("r1")
    assert await _dumped(books) == before


@pytest.mark.parametrize("key", [LINE, DUE])
async def test_admit_takes_its_hold_back_when_another_key_is_of_a_wrong_type(books: Books, key: str) -> None:
    await books.link.command("DEL", key)
    await books.link.command("HSET", key, "a", "b")
    before = await _dumped(books)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await books.admit("r1")
    assert await _dumped(books) == before
