"""A provider's frames in a session: each is read or passed over, and a response that ends comes to a bill."""

import json
from typing import Any

from gateway.dialects.openai import realtime
from gateway.dialects.openai.realtime import Realtime, ResponsesSocket
from gateway.legs import Leg, event_of
from ledger.money import MAX_NANOS
from tests import billing
from tests.fuzz.answers import PRICED, check_counts
from tests.fuzz.tape import Tape, mutated

REALTIME, SOCKET = Realtime(), ResponsesSocket()
_SPOKEN = {
    "input_tokens": 100, "output_tokens": 40, "total_tokens": 140,
    "input_token_details": {"cached_tokens": 30, "audio_tokens": 40, "cached_tokens_details": {"audio_tokens": 10}},
    "output_token_details": {"audio_tokens": 25},
}  # fmt: skip
_TOKENS = {"type": "tokens", "input_tokens": 10, "output_tokens": 3, "input_token_details": {"audio_tokens": 9}}
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
_DONE = {"id": "resp_1", "model": "m", "status": "completed", "service_tier": "default", "output": []}
_EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "response.done", "response": {**_DONE, "usage": _SPOKEN}},
    {"type": "response.done", "response": {**_DONE, "status": "cancelled", "usage": None}},
    {"type": _TRANSCRIBED, "transcript": "Hi", "usage": _TOKENS},
    {"type": _TRANSCRIBED, "transcript": "Hi", "usage": {"type": "duration", "seconds": 3.2}},
    {"type": "response.completed", "response": {**_DONE, "usage": {"input_tokens": 11, "output_tokens": 5}}},
    {"type": "response.failed", "response": {**_DONE, "status": "failed", "usage": None}},
    {"type": "response.created", "response": _DONE},
    {"type": "response.output_text.delta", "delta": "Hello \\ there."},
)
FRAMES = [json.dumps(event).encode() for event in _EVENTS]


def check(tape: Tape) -> None:
    """A few frames of one response, the last of which may end it."""
    kind = REALTIME if tape.chance(2) else SOCKET
    asked = (
        REALTIME.ask("m") if kind is REALTIME else SOCKET.ask(b'{"type":"response.create","model":"m","input":"Hi"}')
    )
    ticket = billing.ticket(PRICED, kind, asked, b"")
    leg = Leg(ticket)
    leg.upstream = billing.UPSTREAM
    written, ended = 0, None
    for _ in range(1 + tape.number(4)):
        frame = mutated(tape, tape.pick(FRAMES), FRAMES)
        leg.pass_on(frame)
        written += sum(map(len, realtime.WRITTEN.findall(frame)))
        event = event_of(frame)
        assert realtime.answered_id(event) is None or realtime.answered_id(event)
        ended = kind.ended(event) if realtime.may_end(frame) else None
        if ended is not None:
            check_counts(ended.usage)
            break
    assert 0 <= leg.used_nanos() <= ticket.admitted.amount_nanos
    settled = leg.end("complete" if ended else "upstream_broke", ended)
    assert 0 <= settled.cost_nanos <= MAX_NANOS
    if ended and not settled.void:
        assert settled.facts.estimated or settled.facts.usage == ended.usage
    if written and ended and event.get("type") in ("response.completed", "response.incomplete", _TRANSCRIBED):
        assert settled.cost_nanos > 1, "what was written is not free"
