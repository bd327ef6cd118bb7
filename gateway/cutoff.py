"""Ending a request from outside: at once, or after a while. What `asyncio.timeout` does, for what mostly runs to its end."""

import asyncio
from types import TracebackType
from typing import Self


class Cutoff:
    """A block that may be ended with TimeoutError. Used once, by the task that makes it.

    As in `asyncio.Timeout`, a cancellation of this task by somebody else stays one.
    """

    __slots__ = ("_before", "_fired", "_task", "_timer")

    def __init__(self, task: asyncio.Task[None] | None = None) -> None:
        """`task`: this one, if it is at hand; asyncio takes a system call to look it up."""
        task = task or asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[object] | None = task
        self._before = task.cancelling()
        self._fired = False
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> None:
        """End the block after so long, if it has not ended by then; the last word counts, unless it is over already."""
        if self._task is None or self._fired:
            return
        if self._timer is not None:
            self._timer.cancel()
        if seconds <= 0:
            self._fire()
        else:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._fire)

    def _fire(self) -> None:
        if self._task is not None:
            self._fired = True
            self._task.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        if self._fired and task is not None:
            ours = task.uncancel() <= self._before
            if ours and kind is asyncio.CancelledError:
                raise TimeoutError from error
