"""A request on its way to an upstream at its limit: in its turn, patient while it waits, and then with all its time."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.dialects.shape import Outgoing
from gateway.surface import OPENAI
from gateway.upstream import attempts
from gateway.upstream.attempts import Search
from gateway.upstream.choice import NoRoom, Want, spot_of
from gateway.upstream.client import Chosen, Upstreams
from gateway.upstream.pools import Pools
from gateway.upstream.quota import Left
from gateway.upstream.waiting import Line
from tests.unit.test_upstream_rooms import Clock, at, known

LINE = Line("m", 3, 30.0)


class Answering:
    """Upstreams that answer with these statuses, one after the other, and then with 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.asked: list[str] = []

    async def ask(self, chosen: Chosen, *_: Any, **__: Any) -> Any:
        self.asked.append(chosen.upstream.name)
        status = self.statuses.pop(0) if self.statuses else 200
        return SimpleNamespace(status=status, headers=[], drop=lambda: None)


def pools_of(upstreams: Answering, *able: Chosen, clock: Clock) -> Pools:
    pools = Pools(cast("Upstreams", upstreams))
    pools.health = known(*able, clock=clock)
    return pools


async def status_of(search: Search) -> int:
    found = await search.answer(OPENAI, (), lambda _: Outgoing("/", b""), form=False)
    return found.status


async def began(search: Search) -> asyncio.Task[int]:
    """Asking, and as far as it gets by itself."""
    task = asyncio.create_task(status_of(search))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_who_waits_comes_before_one_who_has_no_line() -> None:
    """The minute brings one place: it is not the latecomer's, although it came when nobody was looking."""
    clock, upstreams, one = Clock(), Answering(), at("a", requests_per_minute=1)
    pools = pools_of(upstreams, one, clock=clock)
    assert await status_of(Search(pools, [[one]], Want())) == 200
    waits = await began(Search(pools, [[one]], Want(), LINE))
    assert not waits.done()
    clock.now += 60
    with pytest.raises(NoRoom):
        await status_of(Search(pools, [[one]], Want()))
    assert await waits == 200
    assert upstreams.asked == ["a", "a"]


async def test_who_can_wait_does_not_go_where_the_provider_would_refuse() -> None:
    clock, upstreams, one = Clock(), Answering(), at("a")
    pools = pools_of(upstreams, one, clock=clock)
    pools.health.told(spot_of(one), {b"requests": Left(0, 9.0)})
    waits = await began(Search(pools, [[one]], Want(), LINE))
    assert upstreams.asked == []
    clock.now += 9
    pools.waiting.serve()
    assert await waits == 200


async def test_who_has_waited_in_vain_is_sent_like_one_who_could_not_wait() -> None:
    """The provider may refuse it, or may not: better than a refusal of our own."""
    clock, upstreams, one = Clock(), Answering(), at("a")
    pools = pools_of(upstreams, one, clock=clock)
    pools.health.told(spot_of(one), {b"requests": Left(0, 9.0)})
    assert await status_of(Search(pools, [[one]], Want(), Line("m", 3, 0.001))) == 200
    assert upstreams.asked == ["a"]


async def test_waiting_is_no_part_of_the_time_to_search_in(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, upstreams, able = Clock(), Answering(500), [at("a", concurrency=1), at("b", concurrency=1)]
    pools = pools_of(upstreams, *able, clock=clock)
    monkeypatch.setattr(attempts, "time", SimpleNamespace(monotonic=clock, time=time.time))
    for each in able:
        pools.take(each)
    waits = await began(Search(pools, [able], Want(), LINE))
    clock.now += attempts.SEARCH_WITHIN_S + 1
    for each in able:
        pools.leave(each)
    assert await waits == 200, "the second is asked after the first has failed"
    assert sorted(upstreams.asked) == ["a", "b"]
