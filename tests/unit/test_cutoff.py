"""Ending a request from outside: only its own block, only in time, and never in place of somebody else's cancellation."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.cutoff import Cutoff


async def block(act: Callable[[Cutoff], object]) -> None:
    with Cutoff() as cutoff:
        act(cutoff)
        await asyncio.sleep(60)


async def test_at_once_also_before_the_block_waits() -> None:
    with pytest.raises(TimeoutError):
        await block(lambda cutoff: cutoff.within(0))
    await asyncio.sleep(0)  # nothing of it is left over


async def test_from_outside_and_after_a_while() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        await block(lambda cutoff: loop.call_soon(cutoff.within, 0.001))


async def test_the_last_word_counts() -> None:
    def twice(cutoff: Cutoff) -> None:
        cutoff.within(3600)
        cutoff.within(0.001)

    with pytest.raises(TimeoutError):
        await block(twice)


async def test_too_late_is_nothing() -> None:
    with Cutoff() as cutoff:
        cutoff.within(0.001)
    cutoff.within(0)
    await asyncio.sleep(0.005)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_by_somebody_else_stays_one() -> None:
    """Also when both come at once: whoever cancelled the task waits for it to end as cancelled."""
    entered = asyncio.Event()
    cutoffs: list[Cutoff] = []

    async def work() -> None:
        with Cutoff() as cutoff:
            cutoffs.append(cutoff)
            entered.set()
            await asyncio.sleep(60)

    for both in (False, True):
        entered.clear()
        task = asyncio.create_task(work())
        await entered.wait()
        task.cancel()
        if both:
            cutoffs[-1].within(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()


async def test_another_error_passes_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        await block(lambda _: 1 // 0)
