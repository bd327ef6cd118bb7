"""Gemini's answers: every body metered exactly, at every split of its bytes; bytes forwarded as they came.

The bodies under fixtures/own were written for the rules that the given ones do not show; their expected values by hand.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.dialects.gemini import generate
from gateway.dialects.meter import Meter
from gateway.dialects.shape import Call, Endpoint
from tests.unit.test_anthropic_fixtures import fed, splits

GIVEN = Path(__file__).parent.parent / "fixtures"
OWN = GIVEN / "own"
ENDPOINTS: dict[str, Endpoint] = {
    "generateContent": generate.GenerateContent(),
    "streamGenerateContent": generate.StreamGenerateContent(),
    "countTokens": generate.CountTokens(),
    "embedContent": generate.EmbedContent(),
    "batchEmbedContents": generate.BatchEmbedContents(),
}
PATHS = sorted([*GIVEN.glob("gemini_*.expect.json"), *OWN.glob("gemini_*.expect.json")])
NAMES = [path.name.removesuffix(".expect.json") for path in PATHS]


def meter_for(request: dict[str, Any], content_type: str) -> Meter:
    """Who reads the answer to a fixture's request, whose path is /{version}/models/{model}:{verb}."""
    path, _, query = request["path"].partition("?")
    version, _, last = path.removeprefix("/").split("/")
    model, _, verb = last.partition(":")
    body = json.dumps(request.get("json", {"contents": []})).encode()
    endpoint = ENDPOINTS[verb]
    return endpoint.meter(
        endpoint.read(Call(body, query=query.encode(), target=(version, model))), content_type.encode()
    )


def test_there_are_fixtures() -> None:
    assert {"gemini_generate", "gemini_stream"} <= set(NAMES)
    assert sum(path.parent == OWN for path in PATHS) >= 30


@pytest.mark.wire("3b.1", "3b.2", "3b.3", "3b.4", "3b.5", "3b.7", "3b.8", "5.3", "5.4", "5.9")
@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_fixture_at_every_split(path: Path) -> None:
    expect = json.loads(path.read_text())
    body = (path.parent / expect["body"]).read_bytes()
    wanted = None if expect["meter"] is None else dict(expect["meter"])
    model = wanted.pop("model", None) if wanted else None
    for pieces in splits(body):
        meter = meter_for(expect["request"], expect["http"]["content_type"])
        assert fed(meter, pieces) == body
        assert meter.usage() == wanted
        assert meter.done == expect.get("done", True)
        assert wanted is None or meter.model == model
        assert meter.content_bytes == expect.get("content_bytes", meter.content_bytes)
        assert meter.output_seen() == expect.get("output_seen", meter.output_seen())
