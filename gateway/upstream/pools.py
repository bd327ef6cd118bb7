"""All upstreams of a worker: where each model can be served, what was noticed of them, and who waits for them."""

import asyncio
import time

from gateway import metrics
from gateway.catalogues import Opened
from gateway.dialects.shape import Dialect
from gateway.upstream.choice import candidates, spot_of
from gateway.upstream.client import Chosen, Spot, Upstreams
from gateway.upstream.health import NO_TOKENS, Budget, Health
from gateway.upstream.quota import Tokens
from gateway.upstream.waiting import Line, Waiting
from ledger import tally
from ledger.catalogue import Model

LOOK_EVERY_S = 1.0


class Pools:
    """`share`: among how many workers, of all gateways, the upstreams' limits are divided."""

    def __init__(self, upstreams: Upstreams, *, share: int = 1) -> None:
        self.upstreams = upstreams
        self.health = Health(time.monotonic, share=share)
        self.budget = Budget()
        self.waiting = Waiting()
        self._share = share
        self._version = 0
        self._able: dict[tuple[str, str], list[Chosen]] = {}
        self._asked: dict[Spot, Chosen] = {}
        self._shown: dict[tuple[str, str], bool] = {}

    def able(self, model: Model, opened: Opened, dialect: Dialect) -> list[Chosen]:
        """Where a model can be served; worked out once for a catalogue."""
        if opened.book.version > self._version:
            self._learn(opened)
        elif opened.book.version < self._version:  # admitted before the change
            return candidates(model, opened, dialect)
        key = (model.name, dialect.name)
        found = self._able.get(key)
        if found is None:
            found = self._able[key] = candidates(model, opened, dialect)
        return found

    def line(self, model: Model) -> Line | None:
        """Where requests for a model wait, if they may."""
        if not model.queue_size:
            return None
        return Line(model.name, max(model.queue_size // self._share, 1), model.queue_timeout_s)

    def _learn(self, opened: Opened) -> None:
        """The catalogue in force: limits count from now on, also for those who wait."""
        book = opened.book
        self._version = book.version
        self._able.clear()
        self.health.rooms.learn(book.upstreams.values())
        self._asked = {
            spot: each._replace(credential=opened.credentials[spot.upstream])
            for spot, each in self._asked.items()
            if spot.upstream in book.upstreams
        }
        self.waiting.serve()

    def take(self, chosen: Chosen, tokens: Tokens = NO_TOKENS) -> None:
        """A request goes there; `leave` must follow."""
        spot = spot_of(chosen)
        self._asked[spot] = chosen
        self.health.begin(spot, tokens)
        tally.move(metrics.UPSTREAM_OPEN, chosen.upstream.name, by=1)

    def leave(self, chosen: Chosen, tokens: Tokens = NO_TOKENS, *, used: int = 0) -> None:
        """It is over there, and has used so many tokens; who waits for the place has it at once."""
        self.health.end(spot_of(chosen), tokens, used=used)
        tally.move(metrics.UPSTREAM_OPEN, chosen.upstream.name, by=-1)
        self.waiting.serve()

    async def look_for_ever(self) -> None:
        """Show which upstreams can be asked: a pause ends by itself, so nobody else would say so."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        now = {
            (each.upstream.name, each.target.model): self.health.is_well(spot, each.credential)
            for spot, each in self._asked.items()
        }
        for labels in self._shown.keys() - now.keys():  # removed by its operator: nobody's alarm
            now[labels] = True
        for labels, usable in now.items():
            before = self._shown.get(labels)
            if before is not usable:
                tally.move(metrics.UPSTREAM_USABLE, *labels, by=usable - (before or 0))
                self._shown[labels] = usable
