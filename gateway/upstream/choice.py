"""Which upstream serves a request: by priority, then by what is sticky, then the less busy of two (docs/upstreams.md)."""

import hashlib
import random
from collections.abc import Sequence

from gateway.catalogues import Opened
from gateway.dialects.shape import Dialect
from gateway.refusals import Code, Refusal
from gateway.upstream.client import Chosen
from gateway.upstream.health import Health, Spot
from ledger.catalogue import Model

_AGAIN_S = 1.0


def candidates(model: Model, opened: Opened, dialect: Dialect) -> list[Chosen]:
    """Where a model can be served in this dialect, the first priority first."""
    found = []
    for target in model.targets:
        upstream = opened.book.upstreams.get(target.upstream)
        if upstream is not None and upstream.weight and upstream.provider in dialect.providers:
            found.append(Chosen(upstream, target, opened.credentials[upstream.id]))
    return sorted(found, key=lambda chosen: chosen.upstream.priority)


def spot_of(chosen: Chosen) -> Spot:
    return Spot(chosen.upstream.id, chosen.target.model)


def choose(able: Sequence[Chosen], health: Health, tried: Sequence[Chosen], sticky: str | None) -> Chosen:
    """The best one that was not tried; a Refusal that says when to come back if there is none."""
    left = [each for each in able if each not in tried]
    usable = [each for each in left if health.usable(spot_of(each), each.credential)]
    if not usable:
        waits = [health.wait_s(spot_of(each)) for each in able]
        message = "No upstream serves this model at the moment; please try again."
        raise Refusal(Code.TEMPORARILY_UNAVAILABLE, message, retry_after_s=min(waits, default=0.0) or _AGAIN_S)
    first = usable[0].upstream.priority
    group = [each for each in usable if each.upstream.priority == first]
    if len(group) == 1:
        return group[0]
    if sticky is not None:
        return max(group, key=lambda each: _rank(sticky, each))
    return min(_two_of(group), key=lambda each: health.load(each.upstream.id) / each.upstream.weight)


def _two_of(group: list[Chosen]) -> list[Chosen]:
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
