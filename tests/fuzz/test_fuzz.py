"""The short form of `make fuzz`: every check on some thousand cases, which hypothesis makes and shrinks."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import surface
from tests.corpus import SAMPLES
from tests.fuzz import checks, forms
from tests.fuzz.checks import CHECKS
from tests.fuzz.requests import REQUESTS
from tests.fuzz.tape import LENGTH, Tape, mutated

CASES = st.binary(min_size=LENGTH, max_size=LENGTH)
EXAMPLES = {"answers": 600, "requests": 1_000, "forms": 500, "cutters": 200, "paths": 1_000, "frames": 1_000}


@pytest.mark.wire("0.5", "5.3", "5.4", "5.9", "5.12", "6.10", "6.14", "8.7")
@pytest.mark.parametrize("name", CHECKS)
def test_whatever_comes(name: str) -> None:
    # The same cases each time: `make fuzz` is for finding new ones, and a build is not red by luck.
    @settings(max_examples=EXAMPLES[name], deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(CASES)
    def check(data: bytes) -> None:
        CHECKS[name](Tape(data))

    check()


def test_every_endpoint_is_among_the_cases() -> None:
    served = {*surface._OPENAI.values(), *surface._ANTHROPIC.values(), *surface._GEMINI.values()}
    assert {sample.endpoint for sample in SAMPLES} == served
    asked = {type(request.endpoint) for request in REQUESTS} | {type(endpoint) for endpoint in forms.ENDPOINTS}
    assert asked == {type(endpoint) for endpoint in served}


def test_a_case_is_its_bytes_and_zeros_change_nothing() -> None:
    body = SAMPLES[0].body
    assert mutated(Tape(b""), body, [b"other"]) == body
    assert Tape(b"").pieces(body) == [body]
    tape = bytes(range(1, 1 + LENGTH))
    assert mutated(Tape(tape), body, [b"other"]) == mutated(Tape(tape), body, [b"other"]) != body


def test_a_case_that_fails_is_made_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(tape: Tape) -> None:
        tape.number(256)
        assert tape.number(256) < 100

    monkeypatch.setattr(checks, "CHECKS", {"it": check})
    data = bytes([7] * 1 + [250] * (LENGTH - 1))
    assert checks.failure("it", data) is not None
    assert checks.shrunk("it", data) in (b"\x00\x7d", b"\x00\xfa")
    assert checks.failure("it", b"\x07\x63") is None
