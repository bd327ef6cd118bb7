"""What is to be admitted, and what an admitted request was decided with."""

from typing import Any, Final

from msgspec.structs import replace

from gateway import quotes
from gateway.catalogues import Opened, Snapshot
from gateway.dialects.shape import Asked, Dialect, Operation
from gateway.upstream.quota import Tokens
from ledger.catalogue import Model
from ledger.facts import Facts
from ledger.hot import Admitted, Place
from ledger.prices import cost_nanos


class Wish:
    """What is to be admitted: in which dialect, what for, what it asks for, and the bytes that ask.

    `alone`: whether no other model may stand in; a session stays with the one it began with.
    """

    def __init__(
        self, dialect: Dialect, operation: Operation, asked: Asked, body: bytes, *, alone: bool = False
    ) -> None:
        self.dialect: Final = dialect
        self.operation: Final = operation
        self.asked: Final = asked
        self.body: Final = body
        self.alone: Final = alone


class Standin:
    """Another model that may serve: the output cap to set for it, if any, and the most output that it may write."""

    def __init__(self, model: Model, set_cap: int | None, most_output: int) -> None:
        self.model: Final = model
        self.set_cap: Final = set_cap
        self.most_output: Final = most_output


class Ticket:
    """An admitted request: its hold, and what it was decided with. `model` is the one that serves and is billed."""

    def __init__(
        self,
        *,
        rid: str,
        place: Place,
        model: Model,
        standins: tuple[Standin, ...],
        opened: Opened,
        snapshot: Snapshot,
        admitted: Admitted,
        set_cap: int | None,
        input_estimate: int,
        most_output: int,
        tokens: Tokens,
        facts: Facts,
        costs_nothing: bool,
    ) -> None:
        self.rid: Final = rid
        self.place: Final = place
        self.model: Final = model
        self.standins: Final = standins
        self.opened: Final = opened
        self.snapshot: Final = snapshot
        self.admitted: Final = admitted
        self.set_cap: Final = set_cap
        self.input_estimate: Final = input_estimate
        self.most_output: Final = most_output
        self.tokens: Final = tokens
        self.facts: Final = facts
        self.costs_nothing: Final = costs_nothing

    def cost(self, usage: dict[str, Any]) -> int:
        if self.admitted.free or self.costs_nothing:
            return 0
        return cost_nanos(self.model.price, usage, markup_ppm=self.snapshot.account_policy.markup_ppm)

    def served_by(self, name: str) -> "Ticket":
        """The ticket of a request that this model serves; it is billed at its price (`facts`)."""
        for each in self.standins:
            if each.model.name == name:
                return self._with(each)
        return self

    def _with(self, standin: Standin) -> "Ticket":
        model = standin.model
        return Ticket(
            rid=self.rid,
            place=self.place,
            model=model,
            standins=self.standins,
            opened=self.opened,
            snapshot=self.snapshot,
            admitted=self.admitted,
            set_cap=standin.set_cap,
            input_estimate=self.input_estimate,
            most_output=standin.most_output,
            tokens=self.tokens,
            facts=replace(self.facts, price_version=model.price.version, fallback_model=model.name),
            costs_nothing=self.costs_nothing,
        )


def standin(model: Model, asked: Asked, cap: int, *, fitted: bool, free: bool) -> Standin:
    """A model under a hold that covers this output cap."""
    cap = min(cap, model.max_output_tokens) if asked.writes else cap
    says = not free and (fitted or quotes.must_say(model, asked, cap))
    return Standin(model, cap if says else None, cap * asked.choices)
