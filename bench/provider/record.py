"""What the provider saw and what it would bill: the other side of the gateway's books."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

SEEN_KEPT = 10_000
BILLS_KEPT = 200_000

Outcome = Literal["open", "answered", "refused", "errored", "cut", "client_left"]


class Seen(msgspec.Struct):
    """One request and its end. `refused` is the provider's own 401 or 404; a scripted 500 is `answered`."""

    number: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    model: str
    credential: str
    arrived_s: float
    """By `time.monotonic`, as `ended_s` is."""
    body: bytes | None = None
    status: int = 0
    streamed: bool = False
    chunks_sent: int = 0
    outcome: Outcome = "open"
    ended_s: float = 0.0

    def header(self, name: str) -> str | None:
        """The first header of this name (names are kept in lower case)."""
        return next((value for key, value in self.headers if key == name), None)


class Bill(NamedTuple):
    """What one request used: all of a whole answer, of a broken stream the prompt and what was sent."""

    number: int
    model: str
    prompt_tokens: int
    completion_tokens: int


class Stats(msgspec.Struct):
    change: int = 0
    """Grows with whatever happens; what a waiting client says it has seen."""
    requests: int = 0
    open_connections: int = 0
    open_streams: int = 0
    held: int = 0
    """Requests that wait for `release()`."""
    by_model: dict[str, int] = {}
    by_credential: dict[str, int] = {}
    by_outcome: dict[str, int] = {}
    billed_requests: int = 0
    billed_prompt_tokens: int = 0
    billed_completion_tokens: int = 0


class Record:
    """All of it, bounded, with a way to wait for a change."""

    def __init__(self, *, bodies: bool) -> None:
        self.bodies = bodies
        self.stats = Stats()
        self.seen: deque[Seen] = deque(maxlen=SEEN_KEPT)
        self.bills: deque[Bill] = deque(maxlen=BILLS_KEPT)
        self._watchers: list[asyncio.Future[None]] = []

    def clear(self) -> None:
        """Forget the past. What is open stays counted; `change` never goes back, somebody may wait on it."""
        old = self.stats
        self.stats = Stats(change=old.change, open_connections=old.open_connections)
        self.seen.clear()
        self.bills.clear()
        self.changed()

    def arrived(self, seen: Seen) -> None:
        stats = self.stats
        self.seen.append(seen)
        stats.by_model[seen.model] = stats.by_model.get(seen.model, 0) + 1
        stats.by_credential[seen.credential] = stats.by_credential.get(seen.credential, 0) + 1
        self.changed()

    def next_number(self) -> int:
        self.stats.requests += 1
        return self.stats.requests

    def ended(self, seen: Seen, outcome: Outcome, bill: Bill | None) -> None:
        stats = self.stats
        seen.outcome = outcome
        seen.ended_s = time.monotonic()
        stats.by_outcome[outcome] = stats.by_outcome.get(outcome, 0) + 1
        if bill is not None:
            self.bills.append(bill)
            stats.billed_requests += 1
            stats.billed_prompt_tokens += bill.prompt_tokens
            stats.billed_completion_tokens += bill.completion_tokens
        self.changed()

    def changed(self) -> None:
        self.stats.change += 1
        if self._watchers:
            watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                if not watcher.done():
                    watcher.set_result(None)

    async def wait_until(self, predicate: Callable[[], bool]) -> None:
        """Looks again at each change, and only then."""
        while not predicate():
            watcher = asyncio.get_running_loop().create_future()
            self._watchers.append(watcher)
            await watcher
