"""Rate limits to the microsecond, and spend caps over days and months."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from ledger.hot import Admitted, Refused
from ledger.link import Script
from tests.lua.books import ACCOUNT, FUTURE, KEY, LINE, MINUTE, Books, changed

LIMITS = [("key", "requests"), ("key", "tokens"), ("account", "requests"), ("account", "tokens")]


async def limit(books: Books, scope: str, kind: str, per_minute: int) -> None:
    await books.set(KEY if scope == "key" else ACCOUNT, **{"rpm" if kind == "requests" else "tpm": per_minute})


def state_of(scope: str, kind: str) -> tuple[str, str]:
    return (LINE if scope == "key" else ACCOUNT, "rt" if kind == "requests" else "tt")


@pytest.mark.parametrize(("scope", "kind"), LIMITS)
@pytest.mark.parametrize("per_minute", [1, 7, 60])
async def test_a_burst_of_the_limit_passes_and_one_more_waits(
    books: Books, scope: str, kind: str, per_minute: int
) -> None:
    await limit(books, scope, kind, per_minute)
    first = await books.admitted("r0", 1, tokens=1)
    for number in range(1, per_minute):
        await books.admitted(f"r{number}", 1, tokens=1)
    before = await books.picture()
    refusal = await books.admit("one more", 1, tokens=1)
    after = await books.now()
    assert isinstance(refusal, Refused)
    assert refusal.word == "RATE"
    assert refusal.details[:2] == (scope, kind)
    key, field = state_of(scope, kind)
    cost = -(-MINUTE // per_minute)
    assert await books.get(key, field) == first.at_us + cost * per_minute
    earliest = first.at_us + cost * (per_minute + 1) - MINUTE  # the moment at which it would have passed
    assert earliest - after <= int(refusal.details[2]) < earliest - first.at_us
    assert await books.picture() == before


@pytest.mark.parametrize(("scope", "kind"), LIMITS)
async def test_the_wait_is_exact(books: Books, scope: str, kind: str) -> None:
    """A state that many microseconds further back lets the same request in; the refused ones used up nothing."""
    await limit(books, scope, kind, 3)
    for number in range(3):
        await books.admitted(f"r{number}", 1, tokens=1)
    refusal = await books.admit("r3", 1, tokens=1)
    assert isinstance(refusal, Refused)
    key, field = state_of(scope, kind)
    await books.add(key, field, -int(refusal.details[2]))
    assert isinstance(await books.admit("r3", 1, tokens=1), Admitted)


@pytest.mark.parametrize(("scope", "kind"), LIMITS)
async def test_a_refused_request_uses_nothing_of_any_limit(books: Books, scope: str, kind: str) -> None:
    for each in LIMITS:
        await limit(books, *each, per_minute=10)
    await books.admitted("r1", 1, tokens=1)
    key, field = state_of(scope, kind)
    await books.set(key, **{field: await books.now() + MINUTE})
    before = await books.picture()
    refusal = await books.admit("r2", 1, tokens=1)
    assert isinstance(refusal, Refused)
    assert refusal.details[:2] == (scope, kind)
    assert await books.picture() == before


async def test_the_longest_wait_is_told(books: Books) -> None:
    await books.set(KEY, rpm=10, tpm=10)
    now = await books.now()
    await books.set(LINE, rt=now + MINUTE // 2, tt=now + MINUTE)
    refusal = await books.admit("r1", 1, tokens=10)
    assert isinstance(refusal, Refused)
    assert refusal.details[:2] == ("key", "tokens")


@pytest.mark.parametrize("tokens", [10, 11, 10**12, 2**53 - 1])
async def test_tokens_above_the_limit_count_as_the_limit(books: Books, tokens: int) -> None:
    await books.set(KEY, tpm=10)
    reply = await books.admitted("r1", 1, tokens=tokens)
    assert reply.key_tokens_us == MINUTE
    assert (await books.hold())["lus"] == str(MINUTE)
    refusal = await books.admit("r2", 1, tokens=1)
    assert isinstance(refusal, Refused)
    assert refusal.word == "RATE"


async def test_how_much_of_a_minute_is_in_use_is_told(books: Books) -> None:
    await books.set(KEY, rpm=60, tpm=600)
    await books.set(ACCOUNT, rpm=30, tpm=300)
    reply = await books.admitted("r1", 1, tokens=10)
    assert (reply.key_requests_us, reply.key_tokens_us) == (1_000_000, 1_000_000)
    assert (reply.account_requests_us, reply.account_tokens_us) == (2_000_000, 2_000_000)


async def test_a_clock_that_stepped_back_locks_out_for_a_minute_at_most(books: Books) -> None:
    await books.set(KEY, rpm=60)
    await books.set(LINE, rt=FUTURE)
    refusal = await books.admit("r1", 1)
    assert refusal == Refused("RATE", ("key", "requests", "1000000"))


@pytest.mark.parametrize(
    ("estimate", "actual", "moved_us"),
    [
        (100, 100, 0),
        (100, 50, -3_000_000),
        (100, 0, -6_000_000),
        (100, 150, 3_000_000),
        (100, 10**15, None),  # never past now + one minute
        (3, 1, -120_000),
        (0, 50, 0),  # an estimate of nothing moves nothing
        (100, None, 0),  # unknown: as estimated
    ],
)
async def test_settle_moves_the_token_state_to_what_was_used(
    books: Books, estimate: int, actual: int | None, moved_us: int | None
) -> None:
    await books.set(KEY, tpm=1000)
    await books.set(ACCOUNT, tpm=1000)
    await books.admitted("r1", 1, tokens=estimate)
    before = await books.picture()
    earliest = await books.now()
    await books.settle("r1", 1, tokens=actual)
    latest = await books.now()
    for key, name in ((LINE, "line:line"), (ACCOUNT, "acct:acc")):
        state = await books.get(key, "tt")
        if moved_us is None:
            assert earliest + MINUTE <= state <= latest + MINUTE
        else:
            assert state == int(before[name]["tt"]) + moved_us
        assert str(await books.get(key, "rt")) == before[name]["rt"]


async def test_a_true_up_never_goes_below_zero(books: Books) -> None:
    await books.set(KEY, tpm=1)
    await books.admitted("r1", 1, tokens=1)
    await books.set(LINE, tt=5)
    await books.settle("r1", 1, tokens=0)
    assert await books.get(LINE, "tt") == 0


async def test_caps_count_holds_and_then_charges(books: Books) -> None:
    await books.set(KEY, dcap=100, mcap=150)
    await books.admitted("r1", 60)
    assert await books.admit("r2", 41) == Refused("CAP", ("day", "41", "40"))
    await books.settle("r1", 10)
    assert (await books.get(LINE, "dsum"), await books.get(LINE, "msum")) == (10, 10)
    await books.admitted("r2", 90)
    await books.settle("r2", 0, void=True)
    assert (await books.get(LINE, "dsum"), await books.get(LINE, "msum")) == (10, 10)
    await books.admitted("r3", 90)
    await books.progress("r3", 20)
    await books.abandon("r3")
    assert (await books.get(LINE, "dsum"), await books.get(LINE, "msum")) == (30, 30)
    await books.settle("r3", 25)
    assert (await books.get(LINE, "dsum"), await books.get(LINE, "msum")) == (35, 35)
    await books.settle("orphan", 7)  # admitted in no period that is known: it counts in none
    assert (await books.get(LINE, "dsum"), await books.get(LINE, "msum")) == (35, 35)


@pytest.mark.parametrize("end", ["settled", "voided", "abandoned", "late"])
@pytest.mark.parametrize(("day", "month"), [(1, 0), (1, 1)])
async def test_an_end_from_an_older_period_leaves_the_new_one_alone(
    books: Books, end: str, day: int, month: int
) -> None:
    await books.admitted("r1", 60)
    if end == "late":
        await books.abandon()
    await books.add(LINE, "day", day)
    await books.add(LINE, "month", month)
    await books.set(LINE, dsum=7, msum=70)
    before = await books.picture()
    if end == "abandoned":
        await books.abandon()
    else:
        await books.settle("r1", 0 if end == "voided" else 10, void=end == "voided")
    charge = 10 if end in ("settled", "late") else 0
    held = 0 if end == "late" else 60
    line = (await books.picture())["line:line"]
    assert line["dsum"] == "7"
    assert line["msum"] == ("70" if month else str(70 + charge - held))
    assert line["day"] == before["line:line"]["day"]


async def test_a_new_period_begins_at_nothing(books: Books) -> None:
    await books.set(KEY, dcap=100, mcap=1000)
    first = await books.admitted("r1", 100)
    day = first.at_us // 86_400_000_000
    await books.set(LINE, day=day - 1)
    await books.admitted("r2", 100)
    line = (await books.picture())["line:line"]
    assert (line["day"], line["dsum"], line["msum"]) == (str(day), "100", "200")
    await books.add(LINE, "month", -1)
    await books.settle("r1", 3)  # of the same month by number as r2's only if nobody had moved it: left alone
    before = await books.picture()
    await books.settle("r2", 100)
    assert (await books.picture())["line:line"] == changed(before, line__line={"live": "0"})["line:line"]


PERIODS = "local now = tonumber(ARGV[1])\nlocal d, m = periods(now)\nreturn {S(d), S(m)}"


@settings(max_examples=300, deadline=None)
@given(moment=st.datetimes(datetime(1970, 1, 1), datetime(2255, 1, 1)))  # noqa: DTZ001 - UTC is added below
def test_days_and_months_are_the_calendars(shared_url: str, moment: datetime) -> None:
    """Against Python's own calendar: the day's number, and a month's number that grows by one with each month."""
    at_us = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    preludes = "\n".join(
        (Script("admit", "prelude_limits").text.decode().partition("local m = redis")[0], PERIODS),
    )
    with Redis.from_url(shared_url) as client:
        day, month = (int(number) for number in client.eval(preludes, 0, at_us))
    assert day == at_us // 86_400_000_000
    assert month == moment.year * 12 + moment.month - 3
