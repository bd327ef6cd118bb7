"""Answers that are not what they should be: whatever a provider sends, it passes, is metered, and comes to a bill.

What holds for any bytes in any split: no exception; the bytes that went in come out, but for usage frames that nobody
asked for; the numbers do not depend on the split; counts are whole and not below zero; an answer that ended has usage or an
estimate, and none with text in it is free; and an estimate is never above the quote.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.dialects.array import Array
from gateway.dialects.meter import Events, Meter
from gateway.dialects.shape import Asked, Call, Endpoint
from ledger.money import MAX_NANOS
from ledger.price_record import Price, Tier, Variant
from tests import billing
from tests.billing import Priced
from tests.corpus import SAMPLES
from tests.fuzz import cutters
from tests.fuzz.tape import Tape, mutated

_RATES = {
    "input": 2_500_000, "output": 10_000_000, "cached_input": 1_250_000, "request": 1_000, "second": 3_600 * 10**10,
    "web_search": 10**10, "output_audio": 20_000_000,
}  # fmt: skip
PRICE = Price(
    1,
    _RATES,
    (Tier(200, {**_RATES, "input": 5_000_000, "output": 20_000_000}),),
    {"priority": Variant({**_RATES, "input": 7_000_000, "output": 30_000_000})},
)
PRICED = Priced(PRICE, max_input_tokens=20_000, max_output_tokens=5_000)
_CUT: dict[type, Callable[[bytes], list[bytes]]] = {Events: cutters.frames, Array: cutters.objects}
_BEGINS = b'"content_block_start"'
_KINDS = (b"text/event-stream", b"application/json", b"text/plain", b"audio/mpeg", b"application/octet-stream", b"")


class Read(NamedTuple):
    """A request that was read once, for as many answers as there are."""

    name: str
    endpoint: Endpoint
    call: Call
    asked: Asked
    kind: bytes
    body: bytes


def _reads() -> list[Read]:
    found = []
    for sample in SAMPLES:
        found.append(Read(sample.name, sample.endpoint, sample.call, sample.asked, sample.kind, sample.body))
        if sample.asked.hide_usage:  # once more for a caller who asked for the usage frame
            parsed = {**json.loads(sample.call.body), "stream_options": {"include_usage": True}}
            call = Call(json.dumps(parsed).encode())
            read = sample.endpoint.read(call)
            found.append(Read(sample.name + "_shown", sample.endpoint, call, read, sample.kind, sample.body))
    return found


READS = _reads()
BODIES = [read.body for read in READS]


def check(tape: Tape) -> None:
    """One answer, after mutations, in some split."""
    read = tape.pick(READS)
    body = mutated(tape, read.body, BODIES)
    kind = tape.pick(_KINDS) if tape.chance(8) else read.kind
    whole, passed = _metered(read, kind, [body])
    pieces = tape.pieces(body)
    meter, out = _metered(read, kind, pieces)
    assert out == passed
    assert _facts(meter) == _facts(whole)
    _check_bytes(body, out, hidden=read.asked.hide_usage and kind.startswith(b"text/event-stream"))
    for usage in (meter.usage(), meter.estimate()):
        check_counts(usage)
    _check_bill(read, meter, body)


def _metered(read: Read, kind: bytes, pieces: list[bytes]) -> tuple[Meter, bytes]:
    meter = read.endpoint.meter(read.asked, kind)
    out = b"".join([meter.feed(piece) for piece in pieces])
    meter.usage()  # as the relay looks on the way: it must not change anything
    return meter, out + meter.finish()


def _facts(meter: Meter) -> tuple[Any, ...]:
    seen = (meter.content_frames, meter.content_bytes, meter.output_seen())
    return meter.usage(), meter.estimate(), meter.done, meter.model, seen if meter.usage() is None else None


def _check_bytes(body: bytes, out: bytes, *, hidden: bool) -> None:
    """All bytes, in order; but where usage was not asked for, without the frames that are nothing else."""
    if not hidden:
        assert out == body
        return
    at = 0
    for part in cutters.frames(body):
        if out.startswith(part, at):
            at += len(part)
        else:
            document = json.loads(cutters.data(part))
            assert document["choices"] == [], part
            assert isinstance(document["usage"], dict), part
    assert at == len(out)


def check_counts(usage: dict[str, int | str] | None) -> None:
    for name, value in (usage or {}).items():
        if name in ("service_tier", "speed", "inference_geo"):
            assert isinstance(value, str), name
            assert 0 < len(value) <= 200, name
        else:
            assert type(value) is int, name
            assert 0 < value < 2**63, name  # a store that has 64 bits must be able to keep it


def _check_bill(read: Read, meter: Meter, body: bytes) -> None:
    ticket = billing.ticket(PRICED, read.endpoint, read.asked, read.call.body)
    settled = billing.bill(ticket, meter, bytes_out=len(body))
    assert 0 <= settled.cost_nanos <= MAX_NANOS, "no script takes a larger amount"
    if read.endpoint.free:
        assert settled.cost_nanos == 0
        return
    if meter.done or meter.usage() is not None or min(meter.output_seen(), ticket.most_output):
        assert not settled.void
        assert settled.facts.estimated or settled.facts.usage == meter.usage()
    if meter.usage() is None:
        assert settled.cost_nanos <= ticket.admitted.amount_nanos
        assert settled.facts.estimated or settled.void
    if _written(meter, body) and (meter.done or ticket.most_output):
        assert settled.cost_nanos > 1, "an answer with text in it is not free"


def _written(meter: Meter, body: bytes) -> bool:
    """Whether any piece of the answer has text of a model in it, going by how its format spells that.

    Where a block of Anthropic's begins, text is the result of a tool, which no model wrote.
    """
    cut = _CUT.get(type(meter._cutter))
    pieces = cut(body) if cut else [body]
    spoken = [b"\n".join(line for line in piece.splitlines() if _BEGINS not in line) for piece in pieces]
    return any(found for piece in spoken for found in meter._tab.written.findall(piece))
