"""Which upstream serves a request: by priority, then by what is sticky, then the less busy of two (docs/upstreams.md)."""

import hashlib
import math
import random
from collections.abc import Sequence

from gateway.catalogues import Opened
from gateway.dialects.shape import Dialect
from gateway.refusals import Code, Refusal
from gateway.upstream.client import Chosen, Spot
from gateway.upstream.health import NO_TOKENS, Health
from gateway.upstream.quota import Tokens
from ledger.catalogue import Model
from ledger.frozen import Frozen

_AGAIN_S = 1.0


class Want(Frozen, frozen=True):
    """What a request needs of an upstream. `sticky`: others with the same word share a prompt cache. `patient`: it may wait,
    and so does not go where the provider would refuse it.
    """

    tokens: Tokens = NO_TOKENS
    sticky: str | None = None
    patient: bool = False


WHOEVER = Want()


class NoRoom(Refusal):
    """Every upstream that works is at a limit: its operator's, or its provider's."""

    def __init__(self, after_s: float) -> None:
        message = "Every upstream of this model is at its limit; please try again."
        super().__init__(Code.TEMPORARILY_UNAVAILABLE, message, retry_after_s=after_s)


def candidates(model: Model, opened: Opened, dialect: Dialect) -> list[Chosen]:
    """Where a model can be served in this dialect, the first priority first."""
    found = []
    for target in model.targets:
        upstream = opened.book.upstreams.get(target.upstream)
        if upstream is not None and upstream.weight and upstream.provider in dialect.providers:
            spot = Spot(upstream.id, target.model)
            found.append(Chosen(upstream, target, opened.credentials[upstream.id], model.name, spot))
    return sorted(found, key=lambda chosen: chosen.upstream.priority)


def spot_of(chosen: Chosen) -> Spot:
    return chosen.spot or Spot(chosen.upstream.id, chosen.target.model)


def choose(stages: Sequence[Sequence[Chosen]], health: Health, tried: Sequence[Chosen], want: Want = WHOEVER) -> Chosen:
    """The best one that was not tried, of the first stage that has one; a Refusal that says when to come back if there is
    none, and NoRoom if it is only for want of room.
    """
    # Of one alone there is no other to spare it for: it is asked whatever it did, and what it says is passed on.
    alone = len(stages) == 1 and len(stages[0]) == 1
    if alone and not tried and not health.bounded:
        return stages[0][0]
    for able in stages:
        usable = [each for each in able if each not in tried and _is_open(each, health, want, alone=alone)]
        spared = [each for each in usable if not health.quota_in_s(spot_of(each), want.tokens)]
        if spared or (usable and not want.patient):
            return _best(spared or usable, health, want.sticky)
    raise _nobody([each for able in stages for each in able if each not in tried], health, want, alone=alone)


def _is_open(each: Chosen, health: Health, want: Want, *, alone: bool) -> bool:
    """Whether it may be asked, by its limits and by what it did."""
    spot = spot_of(each)
    if health.room_in_s(spot, want.tokens):
        return False
    if alone:
        return not (want.patient and health.cools_for_s(spot))
    return health.usable(spot, each.credential)


def _nobody(left: Sequence[Chosen], health: Health, want: Want, *, alone: bool) -> Refusal:
    """Why nobody can be asked, and when that may be over."""
    waits, full = [], False
    for each in left:
        spot = spot_of(each)
        room = max(health.room_in_s(spot, want.tokens), health.quota_in_s(spot, want.tokens) if want.patient else 0.0)
        room = max(room, health.cools_for_s(spot))
        full = full or (room > 0 and (alone or health.works(spot, each.credential)))
        waits.append(max(room, health.wait_s(spot)))
    soonest = min(waits, default=0.0)
    after_s = soonest if 0 < soonest < math.inf else _AGAIN_S
    if full:
        return NoRoom(after_s)
    message = "No upstream serves this model at the moment; please try again."
    return Refusal(Code.TEMPORARILY_UNAVAILABLE, message, retry_after_s=after_s)


def _best(group: Sequence[Chosen], health: Health, sticky: str | None) -> Chosen:
    """Of those who can be asked: the first priority, then what is sticky, then the less busy of two."""
    if len(group) > 1:
        first = group[0].upstream.priority
        group = [each for each in group if each.upstream.priority == first]
    if len(group) == 1:
        return group[0]
    if sticky is not None:
        return max(group, key=lambda each: _rank(sticky, each))
    return min(_two_of(group), key=lambda each: health.load(each.upstream.id) / each.upstream.weight)


def _two_of(group: Sequence[Chosen]) -> list[Chosen]:
    """Two different ones, by weight: comparing two is nearly as good as comparing all, and no herd forms."""
    weights = [each.upstream.weight for each in group]
    one = random.choices(group, weights)[0]  # noqa: S311
    rest = [each for each in group if each is not one]
    other = random.choices(rest, [each.upstream.weight for each in rest])[0]  # noqa: S311
    return [one, other]


def _rank(sticky: str, chosen: Chosen) -> float:
    """Rendezvous hashing, weighted: the same key goes to the same upstream, so that its prompt cache is used; when one
    drops out only its own keys move.
    """
    digest = hashlib.blake2b(f"{sticky}\0{chosen.upstream.id}".encode(), digest_size=8).digest()
    drawn = (int.from_bytes(digest) + 1) / 2**64
    return float(drawn ** (1.0 / chosen.upstream.weight))
