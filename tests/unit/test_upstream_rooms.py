"""The operator's limits of an upstream, as one worker keeps its share; and a request that finds no room."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.upstream.choice import NoRoom, Want, choose, spot_of
from gateway.upstream.client import Chosen
from gateway.upstream.health import Health
from gateway.upstream.limits import Rate, Rooms
from gateway.upstream.quota import Left, Tokens
from ledger.catalogue import Target, Upstream, UpstreamLimits


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def at(name: str, *, priority: int = 0, **limits: int) -> Chosen:
    upstream = Upstream(name, name, "openai", "https://x", "sealed", priority=priority, limits=UpstreamLimits(**limits))
    return Chosen(upstream, Target(name, "m"), f"key-{name}")


def known(*able: Chosen, clock: Clock | None = None, share: int = 1) -> Health:
    health = Health(clock or Clock(), share=share)
    health.rooms.learn(each.upstream for each in able)
    return health


def fill(health: Health, chosen: Chosen, tokens: int = 0) -> int:
    """Begin requests there until there is no room; how many there were."""
    count, spot = 0, spot_of(chosen)
    while not health.room_in_s(spot, Tokens(tokens)):
        health.begin(spot, Tokens(tokens))
        count += 1
        assert count < 10_000, "no limit"
    return count


@pytest.mark.parametrize("limit", [1, 7, 60, 999])
def test_a_minutes_requests_and_then_as_many_as_a_minute_brings(limit: int) -> None:
    clock, one = Clock(), at("a", requests_per_minute=limit)
    health = known(one, clock=clock)
    assert fill(health, one) == limit
    assert health.room_in_s(spot_of(one), Tokens()) == pytest.approx(60 / limit)
    clock.now += 60 / limit
    assert fill(health, one) == 1
    clock.now += 3_600
    assert fill(health, one) == limit, "what was not used is not saved up"


def test_concurrency_is_free_again_when_a_request_ends() -> None:
    one = at("a", concurrency=3)
    health = known(one)
    assert fill(health, one) == 3
    assert health.room_in_s(spot_of(one), Tokens()) == math.inf
    health.end(spot_of(one))
    assert fill(health, one) == 1


def test_tokens_count_as_quoted_and_then_as_measured() -> None:
    clock, one = Clock(), at("a", tokens_per_minute=1_000)
    health = known(one, clock=clock)
    assert fill(health, one, tokens=300) == 3
    health.end(spot_of(one), Tokens(300), used=100)
    assert health.room_in_s(spot_of(one), Tokens(300)) == 0
    health.begin(spot_of(one), Tokens(300))
    health.end(spot_of(one), Tokens(300), used=900)
    assert health.room_in_s(spot_of(one), Tokens(1_000)) == pytest.approx(60), "never longer than a minute"


def test_a_request_larger_than_the_limit_has_a_minute_to_itself() -> None:
    clock, one = Clock(), at("a", tokens_per_minute=100)
    health = known(one, clock=clock)
    assert fill(health, one, tokens=5_000) == 1
    clock.now += 60
    assert fill(health, one, tokens=5_000) == 1


@pytest.mark.parametrize(("limits", "each"), [((10, 100), (2, 25)), ((1, 4), (1, 1)), ((3, 2), (1, 1))])
def test_workers_have_equal_shares_and_each_may_send_something(limits: tuple[int, int], each: tuple[int, int]) -> None:
    busy, quick = at("a", concurrency=limits[0]), at("b", requests_per_minute=limits[1])
    health = known(busy, quick, share=4)
    assert (fill(health, busy), fill(health, quick)) == each
    wait_s = health.room_in_s(spot_of(quick), Tokens())
    assert wait_s == pytest.approx(60 * 4 / limits[1], rel=1e-6), "a part of a request a minute is one in several"


def test_a_changed_limit_counts_what_was_used_before() -> None:
    clock, one = Clock(), at("a", requests_per_minute=10)
    health = known(one, clock=clock)
    fill(health, one)
    health.rooms.learn([at("a", requests_per_minute=20).upstream])
    assert fill(health, one) == 0
    health.rooms.learn([at("a").upstream])
    assert not health.rooms
    assert health.room_in_s(spot_of(one), Tokens()) == 0


@given(st.lists(st.tuples(st.floats(0, 90), st.integers(1, 400), st.integers(0, 400)), max_size=60))
def test_no_minute_has_more_than_two_of_tokens(steps: list[tuple[float, int, int]]) -> None:
    """A minute's worth at once and what a minute brings; measured more than quoted, it is caught up on."""
    rate, now, taken = Rate(), 0.0, list[tuple[float, int]]()
    for pause, quoted, used in steps:
        now += pause
        if rate.wait_s(now, quoted, 400) == 0:
            rate.take(now, quoted, 400)
            rate.correct(now, min(used, quoted) - quoted, 400)
            taken.append((now, min(used, quoted)))
        assert sum(n for when, n in taken if when > now - 60) <= 2 * 400 + 1e-3
        assert rate.wait_s(now, 400, 400) <= 60 + 1e-6


def test_the_next_one_is_asked_and_nobody_is_a_503_that_says_when() -> None:
    clock, able = Clock(), [at("a", requests_per_minute=2), at("b", priority=1, concurrency=1)]
    health = known(*able, clock=clock)
    went = []
    for _ in range(3):
        chosen = choose([able], health, ())
        health.begin(spot_of(chosen))
        went.append(chosen.upstream.name)
    assert went == ["a", "a", "b"]
    with pytest.raises(NoRoom) as full:
        choose([able], health, ())
    assert full.value.code.status == 503
    assert full.value.retry_after_s == pytest.approx(30)


def test_a_limit_holds_for_an_upstream_that_is_alone() -> None:
    able = [at("a", concurrency=1)]
    health = known(*able)
    health.begin(spot_of(choose([able], health, ())))
    with pytest.raises(NoRoom) as full:
        choose([able], health, ())
    assert full.value.retry_after_s == 1, "nobody knows when the other one ends"


def test_a_quota_that_is_used_up_moves_requests_until_its_reset() -> None:
    clock, able = Clock(), [at("a"), at("b", priority=1)]
    health = known(*able, clock=clock)
    health.told(spot_of(able[0]), {b"requests": Left(2, 9.0)})
    went = []
    for _ in range(4):
        chosen = choose([able], health, ())
        health.begin(spot_of(chosen))
        went.append(chosen.upstream.name)
    assert went == ["a", "a", "b", "b"], "two are left, and cover two under way"
    clock.now += 9
    assert choose([able], health, ()).upstream.name == "a"


def test_when_every_quota_is_used_up_they_are_asked_all_the_same_unless_one_can_wait() -> None:
    able = [at("a"), at("b", priority=1)]
    health = known(*able)
    for each in able:
        health.told(spot_of(each), {b"tokens": Left(100, 5.0)})
    want = Want(Tokens(90, 20))
    assert choose([able], health, (), want).upstream.name == "a"
    assert choose([able[:1]], health, (), want).upstream.name == "a"
    for stages in ([able], [able[:1]]):
        with pytest.raises(NoRoom) as full:
            choose(stages, health, (), replace(want, patient=True))
        assert full.value.retry_after_s == pytest.approx(5)


def test_of_kinds_of_tokens_each_is_compared_with_its_own() -> None:
    able = [at("a"), at("b", priority=1)]
    health = known(*able)
    health.told(spot_of(able[0]), {b"input-tokens": Left(100, 5.0), b"output-tokens": Left(10, 5.0)})
    assert choose([able], health, (), Want(Tokens(100, 10))).upstream.name == "a"
    assert choose([able], health, (), Want(Tokens(10, 11))).upstream.name == "b"
    assert choose([able], health, (), Want(Tokens(101, 1))).upstream.name == "b"


def test_rooms_of_nobody_are_boundless() -> None:
    rooms = Rooms(Clock())
    rooms.begin("a", 10**9)
    rooms.end("a", 10**9, 0)
    assert rooms.wait_s("a", 10**6, 10**9) == 0
