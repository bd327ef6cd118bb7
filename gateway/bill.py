"""What an admitted request comes to, as the settler takes it: the charge, and the event that records it."""

import time
from typing import Final

from msgspec.structs import replace

from gateway import metrics
from gateway.dialects.meter import Usage
from gateway.tickets import Ticket, Wish
from ledger import request_id, tally
from ledger.catalogue import Upstream
from ledger.facts import Facts
from ledger.hot import Place
from ledger.settlement import Settlement

_TOKENS: Final = frozenset(
    ("input_uncached", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h", "cache_write_30m",
     "cache_write_12h", "output"),
)  # fmt: skip
_clock: Final = time.perf_counter
_observe_request: Final = tally.observer(metrics.REQUEST_SECONDS)
_observe_ttft: Final = tally.observer(metrics.TTFT_SECONDS)


class End:
    """How a request ended. Times are of `time.perf_counter`; `usage` is None if the provider reported nothing. Then
    `estimate` stands for it, and where there is none the output tokens `seen`. `whole`: the answer came to its end, so its
    usage is final. `answered`: what costs was begun.
    """

    def __init__(
        self,
        *,
        outcome: str,
        status: int | None,
        usage: Usage | None,
        whole: bool,
        estimate: Usage | None,
        seen: int,
        answered: bool,
        served_model: str | None,
        began: float,
        first_byte: float | None,
        bytes_out: int,
    ) -> None:
        self.outcome: Final = outcome
        self.status: Final = status
        self.usage: Final = usage
        self.whole: Final = whole
        self.estimate: Final = estimate
        self.seen: Final = seen
        self.answered: Final = answered
        self.served_model: Final = served_model
        self.began: Final = began
        self.first_byte: Final = first_byte
        self.bytes_out: Final = bytes_out


def settlement(ticket: Ticket, upstream: Upstream | None, end: End) -> Settlement:
    """Nothing but an answer costs: a refusal, or a break before any content, is void."""
    # The provider keeps to the cap, so what was seen is never more; and a bill is never above its quote.
    seen = min(end.seen, ticket.most_output)
    void = not end.answered or (end.usage is None and seen == 0 and end.outcome != "complete")
    usage: Usage = end.usage or {}
    estimated = False
    if not void and not ticket.costs_nothing:
        if end.usage is None:
            usage, estimated = _estimated(ticket, end.estimate, seen), True
        elif not end.whole and as_count(usage, "output") < seen:  # what was reported was of the beginning
            usage, estimated = {**usage, "output": seen}, True
    ended = _clock()
    place, admitted = ticket.place, ticket.admitted
    _observe_request(ended - end.began)
    if end.first_byte is not None:
        _observe_ttft(end.first_byte - end.began)
    return Settlement(
        ticket.rid,
        place.partition,
        place.account,
        place.key,
        place.line,
        cost_nanos=0 if void else ticket.cost(usage),
        tokens=None if void else _total(usage),
        admitted_us=admitted.at_us,
        void=void,
        facts=replace(
            ticket.facts,
            admitted_us=admitted.at_us,
            outcome=end.outcome,
            served_model=end.served_model,
            provider=upstream.provider if upstream else None,
            upstream=upstream.name if upstream else None,
            status=end.status,
            estimated=estimated,
            usage={} if void else usage,
            quote_nanos=admitted.amount_nanos,
            latency_ms=round((ended - end.began) * 1000),
            ttft_ms=None if end.first_byte is None else round((end.first_byte - end.began) * 1000),
            bytes_out=end.bytes_out,
        ),
    )


def _estimated(ticket: Ticket, estimate: Usage | None, seen: int) -> Usage:
    """The provider keeps to the cap and the model to its longest input, so no estimate is above them."""
    guess: Usage = estimate or {"input_uncached": ticket.input_estimate, "output": seen}
    most = {"output": ticket.most_output, "output_audio": ticket.most_output}
    longest = ticket.model.max_input_tokens
    bound = {name: min(n, most.get(name, longest)) if isinstance(n, int) else n for name, n in guess.items()}
    return {name: n for name, n in bound.items() if n}


def as_count(usage: Usage, name: str) -> int:
    """A bucket's number; 0 if it is not there."""
    value = usage.get(name, 0)
    return value if isinstance(value, int) else 0


def _total(usage: Usage) -> int:
    """Tokens as a rate limit counts them."""
    return sum([value for name, value in usage.items() if name in _TOKENS and isinstance(value, int)])


def void(rid: str, place: Place, wish: Wish, facts: Facts | None = None) -> Settlement:
    """The end of a request that was never asked, or of a hold that nobody knows whether it exists."""
    facts = facts or Facts(
        account=place.account,
        api_key=place.key,
        model=metrics.OTHER,
        dialect=wish.dialect.name,
        endpoint=wish.operation.name,
        price_version=0,
        streamed=wish.asked.streamed,
        outcome="refused_upstream",
    )
    began_us = request_id.began_ms(rid) * 1000
    return Settlement(rid, *place, cost_nanos=0, tokens=None, admitted_us=began_us, facts=facts, void=True)
