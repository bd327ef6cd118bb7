"""What is to be admitted, and what an admitted request was decided with."""

from typing import Any

from msgspec.structs import replace

from gateway import quotes
from gateway.catalogues import Opened, Snapshot
from gateway.dialects.shape import Asked, Dialect, Operation
from gateway.upstream.quota import Tokens
from ledger.catalogue import Model
from ledger.facts import Facts
from ledger.frozen import Frozen
from ledger.hot import Admitted, Place
from ledger.prices import cost_nanos


class Wish(Frozen, frozen=True):
    """What is to be admitted: in which dialect, what for, what it asks for, and the bytes that ask."""

    dialect: Dialect
    operation: Operation
    asked: Asked
    body: bytes
    alone: bool = False
    """Whether no other model may stand in: a session stays with the one it began with."""


class Standin(Frozen, frozen=True):
    """Another model that may serve: the output cap to set for it, if any, and the most output that it may write."""

    model: Model
    set_cap: int | None
    most_output: int


class Ticket(Frozen, frozen=True):
    """An admitted request: its hold, and what it was decided with. `model` is the one that serves and is billed."""

    rid: str
    place: Place
    model: Model
    standins: tuple[Standin, ...]
    opened: Opened
    snapshot: Snapshot
    admitted: Admitted
    set_cap: int | None
    input_estimate: int
    most_output: int
    tokens: Tokens
    facts: Facts
    costs_nothing: bool

    def cost(self, usage: dict[str, Any]) -> int:
        if self.admitted.free or self.costs_nothing:
            return 0
        return cost_nanos(self.model.price, usage, markup_ppm=self.snapshot.account_policy.markup_ppm)

    def served_by(self, name: str) -> "Ticket":
        """The ticket of a request that this model serves; it is billed at its price (`facts`)."""
        for each in self.standins:
            model = each.model
            if model.name == name:
                told = replace(self.facts, price_version=model.price.version, fallback_model=name)
                return replace(self, model=model, set_cap=each.set_cap, most_output=each.most_output, facts=told)
        return self


def standin(model: Model, asked: Asked, cap: int, *, fitted: bool, free: bool) -> Standin:
    """A model under a hold that covers this output cap."""
    cap = min(cap, model.max_output_tokens) if asked.writes else cap
    says = not free and (fitted or quotes.must_say(model, asked, cap))
    return Standin(model, cap if says else None, cap * asked.choices)
