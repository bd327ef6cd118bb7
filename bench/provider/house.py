"""What all connections of one provider share: the script, the record, and the gate."""

import asyncio
from typing import Protocol

from bench.provider.record import Record
from bench.provider.script import Behaviour, Script


class Droppable(Protocol):
    def drop(self, *, idle: bool) -> None: ...


class House:
    def __init__(self, default: Behaviour, accepted_credentials: frozenset[str] | None, *, record_bodies: bool) -> None:
        self.script = Script(default)
        self.record = Record(bodies=record_bodies)
        self.accepted_credentials = accepted_credentials
        self.connections: set[Droppable] = set()
        self._held: dict[asyncio.Future[None], None] = {}

    def accepts(self, credential: str) -> bool:
        return bool(credential) and (self.accepted_credentials is None or credential in self.accepted_credentials)

    async def hold(self) -> None:
        """Until released."""
        waiter = asyncio.get_running_loop().create_future()
        self._held[waiter] = None
        self._count_held()
        try:
            await waiter
        except asyncio.CancelledError:  # the client has left
            self._held.pop(waiter, None)
            self._count_held()
            raise

    def release(self, count: int | None = None) -> int:
        """Lets the first `count` of those that wait now go on; who comes later waits for the next release."""
        chosen = list(self._held)[:count]
        for waiter in chosen:
            del self._held[waiter]
            if not waiter.done():
                waiter.set_result(None)
        self._count_held()
        return len(chosen)

    def reset(self) -> None:
        """Back to the beginning: no rules, no records, nothing in flight that could write into new ones."""
        for connection in list(self.connections):
            connection.drop(idle=False)
        self.script.clear()
        self.record.clear()

    def close(self) -> None:
        for connection in list(self.connections):
            connection.drop(idle=True)

    def _count_held(self) -> None:
        self.record.stats.held = len(self._held)
        self.record.changed()
