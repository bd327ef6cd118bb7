"""Which upstream is asked: circuits, cooldowns, refused credentials, the less busy of two, stickiness, and the budget."""

import random
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.refusals import Refusal
from gateway.upstream import health as rules
from gateway.upstream.choice import Want, choose, spot_of
from gateway.upstream.client import Chosen, Spot
from gateway.upstream.health import FAILURES_TO_OPEN, Budget, Health
from gateway.upstream.quota import retry_after_s
from ledger.catalogue import Target, Upstream

SPOT = Spot("u", "m")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def at(name: str, *, weight: int = 1, priority: int = 0) -> Chosen:
    upstream = Upstream(name, name, "openai", "https://x", "sealed", weight=weight, priority=priority)
    return Chosen(upstream, Target(name, "m"), f"key-{name}")


def test_a_circuit_opens_after_failures_in_a_row_and_one_probe_closes_it(health: Health, clock: Clock) -> None:
    for _ in range(FAILURES_TO_OPEN - 1):
        health.failed(SPOT)
    assert health.usable(SPOT, "k")
    health.failed(SPOT)
    assert not health.usable(SPOT, "k")
    assert 0 < health.wait_s(SPOT) <= rules.FIRST_PAUSE_S
    clock.now += rules.FIRST_PAUSE_S
    assert health.usable(SPOT, "k")
    health.begin(SPOT)
    assert not health.usable(SPOT, "k"), "one probe at a time"
    health.answered(SPOT, 0.1)
    health.end(SPOT)
    assert health.usable(SPOT, "k")
    health.failed(SPOT)
    assert health.usable(SPOT, "k"), "counted anew"


def test_a_probe_that_fails_doubles_the_pause_up_to_a_bound(health: Health, clock: Clock) -> None:
    for _ in range(FAILURES_TO_OPEN):
        health.failed(SPOT)
    waits = []
    for _ in range(12):
        clock.now += health.wait_s(SPOT)
        assert health.usable(SPOT, "k")
        health.begin(SPOT)
        health.failed(SPOT)
        health.end(SPOT)
        waits.append(health.wait_s(SPOT))
    assert waits[-1] <= rules.LONGEST_PAUSE_S
    assert waits[-1] >= rules.LONGEST_PAUSE_S / 2
    assert max(waits[:3]) < waits[-1]


def test_a_probe_that_is_given_up_lets_another_try(health: Health, clock: Clock) -> None:
    """The caller of the probe left: nobody knows more than before."""
    for _ in range(FAILURES_TO_OPEN):
        health.failed(SPOT)
    clock.now += 1
    health.begin(SPOT)
    health.end(SPOT)
    assert health.usable(SPOT, "k")


@pytest.mark.parametrize(("said", "wait"), [(None, 1.0), (5.0, 5.0), (1e9, rules.LONGEST_COOLDOWN_S), (0.0, 0.0)])
def test_a_cooldown_is_as_long_as_it_was_asked_for(
    health: Health, clock: Clock, said: float | None, wait: float
) -> None:
    health.cool(SPOT, said)
    assert health.wait_s(SPOT) == pytest.approx(wait)
    clock.now += wait
    assert health.usable(SPOT, "k")
    assert health.usable(Spot("u", "another"), "k"), "the model's own, not the upstream's"


def test_a_refused_credential_is_out_until_it_changes(health: Health, clock: Clock) -> None:
    health.refuse("u", "old")
    assert not health.usable(SPOT, "old")
    assert health.usable(SPOT, "new")
    clock.now += rules.REFUSED_FOR_S
    assert health.usable(SPOT, "old"), "tried again once in a while: it may have been mended at the provider"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(b"retry-after", b"7")], 7.0),
        ([(b"retry-after-ms", b"250"), (b"retry-after", b"7")], 0.25),
        ([(b"retry-after", b"Wed, 21 Oct 2015 07:28:00 GMT")], 0.0),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"-3")], 0.0),
        ([], None),
    ],
)
def test_how_long_a_provider_wants_to_be_left_alone(headers: list[tuple[bytes, bytes]], seconds: float | None) -> None:
    assert retry_after_s(headers, time.time()) == seconds


def test_the_first_priority_serves_while_it_can(health: Health) -> None:
    able = [at("a", priority=0), at("b", priority=1)]
    assert {choose([able], health, ()).upstream.name for _ in range(20)} == {"a"}
    assert choose([able], health, able[:1]).upstream.name == "b"
    health.cool(spot_of(able[0]), 5)
    assert choose([able], health, ()).upstream.name == "b"


def test_the_less_busy_of_two(health: Health) -> None:
    able = [at("slow"), at("quick")]
    for each, seconds in zip(able, (1.0, 0.01), strict=True):
        health.answered(spot_of(each), seconds)
    assert {choose([able], health, ()).upstream.name for _ in range(20)} == {"quick"}
    for _ in range(200):
        health.begin(spot_of(able[1]))
    assert choose([able], health, ()).upstream.name == "slow"


def test_weights_share_what_is_equally_busy(health: Health) -> None:
    random.seed(7)
    able = [at("a", weight=3), at("b", weight=1), at("c", weight=1)]
    counts: Counter[str] = Counter()
    for _ in range(3_000):
        chosen = choose([able], health, ())
        counts[chosen.upstream.name] += 1
    assert counts["a"] > counts["b"] + counts["c"]


def test_sticky_requests_stay_and_only_those_of_a_lost_upstream_move(health: Health) -> None:
    able = [at(name) for name in "abc"]
    words = [f"cache-{n}" for n in range(300)]
    before = {word: choose([able], health, (), Want(sticky=word)).upstream.name for word in words}
    assert set(before.values()) == set("abc")
    assert before == {word: choose([able], health, (), Want(sticky=word)).upstream.name for word in words}
    health.cool(spot_of(able[0]), 60)
    after = {word: choose([able], health, (), Want(sticky=word)).upstream.name for word in words}
    assert all(after[word] == before[word] for word in words if before[word] != "a")
    assert {after[word] for word in words if before[word] == "a"} == set("bc")


def test_nobody_left_says_when_to_come_back(health: Health) -> None:
    able = [at("a"), at("b")]
    health.cool(spot_of(able[0]), 9)
    health.cool(spot_of(able[1]), 4)
    with pytest.raises(Refusal) as refused:
        choose([able], health, ())
    assert refused.value.code.status == 503
    assert refused.value.retry_after_s == pytest.approx(4.0)


@given(st.lists(st.booleans(), max_size=400))
def test_retries_are_a_tenth_of_the_requests_and_a_few(wishes: list[bool]) -> None:
    budget, retries = Budget(share=0.1, most=5), 0
    for number, wish in enumerate(wishes, start=1):
        budget.earn()
        retries += wish and budget.spend()
        assert retries <= 5 + number / 10 + 1e-6
