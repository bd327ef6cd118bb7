"""The lines: first come first served, bounded in length and time, and left without a trace."""

import asyncio

import pytest

from gateway.refusals import Code, Refusal
from gateway.upstream.waiting import Line, Waiting

LINE = Line("m", 3, 30.0)


class Places:
    """So many places; who has one is in `went`."""

    def __init__(self, free: int = 0) -> None:
        self.free = free
        self.went: list[str] = []
        self.again_s = 60.0


class One:
    def __init__(self, places: Places, name: str) -> None:
        self.places, self.name = places, name

    def go(self) -> float | None:
        if not self.places.free:
            return self.places.again_s
        self.places.free -= 1
        self.places.went.append(self.name)
        return None


async def queued(waiting: Waiting, places: Places, *names: str, line: Line = LINE) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(waiting.turn(line, One(places, name))) for name in names]
    await asyncio.sleep(0)
    return tasks


async def test_the_first_is_the_first_and_nobody_who_comes_later_overtakes() -> None:
    waiting, places = Waiting(), Places()
    tasks = await queued(waiting, places, "a", "b")
    places.free = 1
    waiting.serve()
    assert places.went == ["a"]
    places.free = 2
    assert await waiting.turn(LINE, One(places, "c"))
    assert places.went == ["a", "b", "c"]
    assert await asyncio.gather(*tasks) == [True, True]


async def test_across_lines_the_longest_waiting_is_first() -> None:
    waiting, places = Waiting(), Places()
    first = await queued(waiting, places, "a", line=Line("one", 9, 30))
    second = await queued(waiting, places, "b", "c", line=Line("two", 9, 30))
    third = await queued(waiting, places, "d", line=Line("one", 9, 30))
    places.free = 3
    waiting.serve()
    assert places.went == ["a", "b", "c"]
    places.free = 1
    waiting.serve()
    assert all(await asyncio.gather(*first, *second, *third))


async def test_a_full_line_takes_nobody() -> None:
    waiting, places = Waiting(), Places()
    tasks = await queued(waiting, places, "a", "b", "c")
    assert not await waiting.turn(LINE, One(places, "d"))
    places.free = 3
    waiting.serve()
    assert await asyncio.gather(*tasks) == [True] * 3


async def test_who_leaves_is_out_of_the_line() -> None:
    waiting, places = Waiting(), Places()
    left, stays = await queued(waiting, places, "a", "b")
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    places.free = 1
    waiting.serve()
    assert await stays
    assert places.went == ["b"]
    assert not waiting._lines, "nothing is kept of a line that has ended"


async def test_a_line_that_begins_while_another_of_its_name_ends_is_served() -> None:
    waiting, places = Waiting(), Places()
    early = await queued(waiting, places, "a", "b")
    places.free = 2
    waiting.serve()  # both have gone, and neither has noticed yet
    late = await queued(waiting, places, "c")
    assert await asyncio.gather(*early) == [True, True]
    places.free = 1
    waiting.serve()
    assert await asyncio.gather(*late) == [True]


async def test_the_time_is_up() -> None:
    waiting, places = Waiting(), Places()
    assert not await waiting.turn(Line("m", 3, 0.01), One(places, "a"))
    assert not places.went


async def test_a_rate_that_is_free_again_wakes_without_anybody_ending() -> None:
    waiting, places = Waiting(), Places()
    places.again_s = 0.005
    tasks = await queued(waiting, places, "a", "b")
    places.free = 2
    assert await asyncio.wait_for(asyncio.gather(*tasks), 10) == [True, True]


async def test_where_waiting_is_of_no_use_nobody_waits() -> None:
    class Hopeless:
        def go(self) -> float | None:
            raise Refusal(Code.TEMPORARILY_UNAVAILABLE, "Nobody.")

    waiting = Waiting()
    with pytest.raises(Refusal):
        await waiting.turn(LINE, Hopeless())
    assert not waiting._lines
