"""Anthropic's answers: every body metered exactly, at every split of its bytes; bytes forwarded as they came.

The bodies under fixtures/own were written for the rules that the given ones do not show; their expected values by hand.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.dialects.anthropic.messages import CountTokens, Messages
from gateway.dialects.meter import Meter
from gateway.dialects.shape import Call, Endpoint

GIVEN = Path(__file__).parent.parent / "fixtures"
OWN = GIVEN / "own"
ENDPOINTS: dict[str, Endpoint] = {"/v1/messages": Messages(), "/v1/messages/count_tokens": CountTokens()}
PATHS = sorted([*GIVEN.glob("anthropic_*.expect.json"), *OWN.glob("anthropic_*.expect.json")])
NAMES = [path.name.removesuffix(".expect.json") for path in PATHS]
CALL = Call(b'{"model": "m", "max_tokens": 9, "messages": []}')


def splits(body: bytes) -> Iterator[list[bytes]]:
    """The body whole, cut in two at every byte, and byte by byte."""
    yield [body]
    for at in range(1, len(body)):
        yield [body[:at], body[at:]]
    yield [body[n : n + 1] for n in range(len(body))]


def fed(meter: Meter, pieces: list[bytes]) -> bytes:
    """What the meter passes on."""
    return b"".join([meter.feed(piece) for piece in pieces]) + meter.finish()


def meter_for(path: str, content_type: str) -> Meter:
    endpoint = ENDPOINTS[path]
    return endpoint.meter(endpoint.read(CALL), content_type.encode())


def test_there_are_fixtures() -> None:
    assert {"anthropic_messages", "anthropic_messages_stream"} <= set(NAMES)
    assert sum(path.parent == OWN for path in PATHS) >= 20


@pytest.mark.wire("2b.1", "2b.2", "2b.3", "2b.4", "2b.5", "2b.6", "2b.7", "5.3", "5.4", "5.9", "5.12")
@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_fixture_at_every_split(path: Path) -> None:
    expect = json.loads(path.read_text())
    body = (path.parent / expect["body"]).read_bytes()
    wanted = None if expect["meter"] is None else dict(expect["meter"])
    model = wanted.pop("model", None) if wanted else None
    for pieces in splits(body):
        meter = meter_for(expect["request"]["path"], expect["http"]["content_type"])
        assert fed(meter, pieces) == body
        assert meter.usage() == wanted
        assert meter.done == expect.get("done", True)
        assert wanted is None or meter.model == model
        assert meter.content_bytes == expect.get("content_bytes", meter.content_bytes)
        assert meter.output_seen() == expect.get("output_seen", meter.output_seen())
