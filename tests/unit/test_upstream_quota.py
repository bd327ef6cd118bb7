"""What providers' headers say of what is left; whatever they say, a number comes out or nothing."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.quota import Left, Quota, Tokens, read, retry_after_s

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp()
OPENAI = [
    (b"content-type", b"application/json"),
    (b"x-ratelimit-limit-requests", b"60"),
    (b"x-ratelimit-remaining-requests", b"59"),
    (b"x-ratelimit-remaining-tokens", b"149984"),
    (b"x-ratelimit-reset-requests", b"1s"),
    (b"x-ratelimit-reset-tokens", b"6m0s"),
]
ANTHROPIC = [
    (b"anthropic-ratelimit-requests-limit", b"50"),
    (b"anthropic-ratelimit-requests-remaining", b"0"),
    (b"anthropic-ratelimit-requests-reset", b"2026-11-21T12:00:30Z"),
    (b"anthropic-ratelimit-input-tokens-remaining", b"12000"),
    (b"anthropic-ratelimit-input-tokens-reset", b"2026-11-21T13:00:10+01:00"),
    (b"anthropic-ratelimit-output-tokens-remaining", b"800"),
]


def test_openai_and_xai() -> None:
    assert read(OPENAI, NOW) == {b"requests": Left(59, 1.0), b"tokens": Left(149_984, 360.0)}


def test_anthropic() -> None:
    assert read(ANTHROPIC, NOW) == {
        b"requests": Left(0, 30.0),
        b"input-tokens": Left(12_000, 10.0),
        b"output-tokens": Left(800, None),
    }


def test_nothing_is_said() -> None:
    assert read([(b"content-type", b"application/json"), (b"x-ratelimit", b"1")], NOW) == {}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"120ms", 0.12), (b"1s", 1.0), (b"6m0s", 360.0), (b"1h2m3.5s", 3_723.5), (b"2d", 172_800.0), (b"17", 17.0),
        (b"0", 0.0), (b" 8.64s ", 8.64), (b"2026-11-21T12:00:01.250Z", 1.25), (b"2026-11-21T11:00:00Z", 0.0),
        (b"-1s", None), (b"1e9s", None), (b"nan", None), (b"inf", None), (b"soon", None), (b"", None), (b"1s2", None),
        (b"9" * 5_000, None), (b"1s" * 5_000, None), ("\u0661s".encode(), None), (b"2026-11-21T12:00:01", None),
        (b"0001-01-01T00:00:00+23:59", 0.0), (b"9999-99-99T00:00:00Z", None), (b"\xff", None),
    ],
)  # fmt: skip
def test_resets(text: bytes, seconds: float | None) -> None:
    said = read([(b"x-ratelimit-remaining-tokens", b"1"), (b"x-ratelimit-reset-tokens", text)], NOW)
    assert said[b"tokens"].reset_s == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("text", [b"-1", b"1.5", b"many", b"", b"1" * 16, "\u0661".encode(), b"0x10", b"1_000"])
def test_what_is_no_number_says_nothing(text: bytes) -> None:
    assert read([(b"x-ratelimit-remaining-requests", text)], NOW) == {}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (OPENAI, 1.0),  # nothing is used up: the soonest
        (ANTHROPIC, 30.0),
        ([*ANTHROPIC, (b"retry-after", b"4")], 4.0),
        ([(b"retry-after", b"soon"), *ANTHROPIC], 30.0),
        ([(b"retry-after", b"inf")], None),
        ([(b"retry-after", b"nan")], None),
    ],
)
def test_after_a_429_the_reset_counts_where_retry_after_is_missing(
    headers: list[tuple[bytes, bytes]], seconds: float | None
) -> None:
    assert retry_after_s(headers, NOW) == seconds


NAMES = st.sampled_from([name for name, _ in OPENAI + ANTHROPIC] + [b"retry-after", b"retry-after-ms"])
VALUES = st.one_of(
    st.binary(max_size=80),
    st.from_regex(rb"\A[0-9.eE+-]{0,30}(ms|s|m|h|d|Z)?\Z"),
    st.datetimes().map(lambda at: at.isoformat().encode() + b"Z"),
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_whatever_is_said_a_finite_number_comes_out_or_nothing(headers: list[tuple[bytes, bytes]]) -> None:
    for left in read(headers, NOW).values():
        assert left.left is None or 0 <= left.left < 10**15
        assert left.reset_s is None or 0 <= left.reset_s < math.inf
    wait_s = retry_after_s(headers, NOW)
    assert wait_s is None or 0 <= wait_s < math.inf


def test_what_was_said_is_believed_for_a_minute_at_most() -> None:
    quota = Quota()
    quota.learn({b"requests": Left(0, 86_400.0), b"tokens": Left(0, None)}, 100.0)
    assert quota.wait_s(Tokens(1), 100.0) == 60.0
    assert quota.wait_s(Tokens(1), 160.0) == 0.0


def test_the_newest_word_counts() -> None:
    quota = Quota()
    quota.learn({b"requests": Left(0, 30.0)}, 100.0)
    quota.learn({b"requests": Left(5, 30.0)}, 101.0)
    assert quota.wait_s(Tokens(), 101.0) == 0.0
