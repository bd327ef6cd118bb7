"""What the metrics say of a request that has ended: who counts what is looked up once for all its labels."""

from collections.abc import Callable
from functools import lru_cache

from gateway import metrics
from ledger import log, tally
from ledger.hot import Ended
from ledger.settlement import Settlement

Add = Callable[[float], None]
_KEPT = 1024


def count_ended(s: Settlement, ended: Ended) -> None:
    """Once for each request, when Redis has its charge."""
    f = s.facts
    _requests(f.dialect, f.endpoint, f.model, f.outcome)(1)
    if s.void:
        return
    bill = _bill(f.provider or metrics.OTHER, f.fallback_model or f.model)
    bill.charge_nanos(ended.charge_nanos)
    for bucket, number in f.usage.items():
        if isinstance(number, int):
            (bill.tokens.get(bucket) or bill.count(bucket))(number)
    if f.estimated:
        tally.count(metrics.ESTIMATED, f.provider or metrics.OTHER)
    if ended.shortfall_nanos:
        tally.count(metrics.SHORTFALL_NANOS, by=ended.shortfall_nanos)
        log.get().warning("shortfall", rid=s.rid, account=s.account, model=f.model)


class _Bill:
    """What is counted of a provider's model: nano-USD, and tokens by bucket."""

    __slots__ = ("_labels", "charge_nanos", "tokens")

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self.charge_nanos = tally.adder(metrics.CHARGE_NANOS, *labels)
        self.tokens: dict[str, Add] = {}

    def count(self, bucket: str) -> Add:
        """A bucket that was not seen before."""
        add = self.tokens[bucket] = tally.adder(metrics.TOKENS, *self._labels, bucket)
        return add


@lru_cache(maxsize=_KEPT)
def _bill(provider: str, model: str) -> _Bill:
    return _Bill(provider, model)


@lru_cache(maxsize=_KEPT)
def _requests(dialect: str, endpoint: str, model: str, outcome: str) -> Add:
    return tally.adder(metrics.REQUESTS, dialect, endpoint, model, outcome)
