"""What ends in a session, and what it used."""

from typing import Any

import pytest

from gateway.dialects.meter import Usage
from gateway.dialects.openai.realtime import Ended, Realtime, ResponsesSocket

TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
SPOKEN = {"input_tokens": 100, "output_tokens": 40, "input_token_details": {"cached_tokens": 30, "audio_tokens": 40}}


def done(usage: Any, status: str = "completed") -> dict[str, Any]:
    return {"type": "response.done", "response": {"id": "resp_1", "model": "m", "status": status, "usage": usage}}


@pytest.mark.wire("1b.10")
def test_what_is_cached_is_neither_input_nor_sound_again() -> None:
    details = {
        "cached_tokens": 30,
        "audio_tokens": 40,
        "image_tokens": 5,
        "cached_tokens_details": {"audio_tokens": 10},
    }
    usage = {**SPOKEN, "input_token_details": details, "output_token_details": {"audio_tokens": 25}}
    used: Usage = {
        "input_uncached": 70,
        "cache_read": 30,
        "output": 40,
        "input_audio": 30,
        "input_image": 5,
        "output_audio": 25,
    }
    assert Realtime().ended(done(usage)) == Ended(used, "m")
    assert Realtime().ended({"type": "response.output_audio.done"}) is None


@pytest.mark.wire("1b.10", "1c.5")
@pytest.mark.parametrize(
    ("usage", "used"),
    [
        (
            {"type": "tokens", "input_tokens": 10, "output_tokens": 3, "input_token_details": {"audio_tokens": 9}},
            {"input_uncached": 10, "input_audio": 9, "output": 3},
        ),
        ({"type": "duration", "seconds": 3.2}, {"audio_seconds": 4}),
    ],
)
def test_a_transcription_is_billed_besides_and_names_no_model_of_its_own(usage: Any, used: Usage) -> None:
    assert Realtime().ended({"type": TRANSCRIBED, "transcript": "Hi", "usage": usage}) == Ended(used, None)


@pytest.mark.wire("5.12")
@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": "many"}, {"input_tokens": -1, "output_tokens": 10**12}])
def test_what_was_completed_and_counts_nothing_has_reported_nothing(usage: Any) -> None:
    assert Realtime().ended(done(usage)) == Ended(None, "m")
    completed = {"type": "response.completed", "response": {"model": "m", "usage": usage}}
    assert ResponsesSocket().ended(completed) == Ended(None, "m")
    transcribed = {"type": TRANSCRIBED, "transcript": "Hi", "usage": usage}
    assert Realtime().ended(transcribed) == Ended(None, None)


@pytest.mark.wire("5.12")
def test_what_was_cancelled_may_have_cost_nothing() -> None:
    nothing = {"input_tokens": 0, "output_tokens": 0}
    assert Realtime().ended(done(nothing, "cancelled")) == Ended({}, "m")
    failed = {"type": "response.failed", "response": {"model": "m", "usage": nothing}}
    assert ResponsesSocket().ended(failed) == Ended({}, "m")
