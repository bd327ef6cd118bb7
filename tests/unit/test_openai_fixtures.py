"""OpenAI's answers beside chat: every body metered exactly, at every split of its bytes; bytes forwarded as they came.

The bodies under fixtures/own were written for the rules that the given ones do not show; their expected values by hand.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.dialects.meter import Meter
from gateway.dialects.openai import audio, images, responses
from gateway.dialects.openai.completions import Completions
from gateway.dialects.openai.embeddings import Embeddings
from gateway.dialects.openai.moderations import Moderations
from gateway.dialects.shape import Call, Endpoint

GIVEN = Path(__file__).parent.parent / "fixtures"
OWN = GIVEN / "own"
ENDPOINTS: dict[str, Endpoint] = {
    "/v1/responses": responses.Responses(),
    "/v1/responses/compact": responses.ResponsesCompact(),
    "/v1/responses/input_tokens": responses.ResponsesInputTokens(),
    "/v1/completions": Completions(),
    "/v1/embeddings": Embeddings(),
    "/v1/moderations": Moderations(),
    "/v1/images/generations": images.ImageGenerations(),
    "/v1/images/edits": images.ImageEdits(),
    "/v1/images/variations": images.ImageVariations(),
    "/v1/audio/speech": audio.Speech(),
    "/v1/audio/transcriptions": audio.Transcriptions(),
    "/v1/audio/translations": audio.Translations(),
}
BOUNDARY = "----weir-0123456789"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}".encode()
PATHS = [
    path
    for path in sorted([*GIVEN.glob("openai_*.expect.json"), *OWN.glob("openai_*.expect.json")])
    if json.loads(path.read_text()).get("request", {}).get("path") in ENDPOINTS
]
NAMES = [path.name.removesuffix(".expect.json") for path in PATHS]


def form(parts: list[tuple[str, bytes, str | None]]) -> bytes:
    """A form of (name, content, file name), as SDKs write it."""
    lines = []
    for name, content, filename in parts:
        file = f'; filename="{filename}"\r\nContent-Type: application/octet-stream' if filename else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        lines.append(head.encode() + content + b"\r\n")
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


def call_of(request: dict[str, Any]) -> Call:
    """The request that a fixture answers: JSON, or a form with its file first, as Node's SDK sends it (wire.md 1c)."""
    if "form" in request:
        fields = [(name, value.encode(), None) for name, value in request["form"].items()]
        file = request["file"]
        return Call(form([(file["name"], bytes(file["size"]), "a.bin"), *fields]), FORM_TYPE)
    return Call(json.dumps(request.get("json", {"model": "m"})).encode())


def splits(body: bytes) -> Iterator[list[bytes]]:
    """The body whole, cut in two at every byte, and byte by byte."""
    yield [body]
    for at in range(1, len(body)):
        yield [body[:at], body[at:]]
    yield [body[n : n + 1] for n in range(len(body))]


def fed(meter: Meter, pieces: list[bytes]) -> bytes:
    """What the meter passes on."""
    return b"".join([meter.feed(piece) for piece in pieces]) + meter.finish()


def meter_for(path: str, *, content_type: str = "application/json", request: dict[str, Any] | None = None) -> Meter:
    endpoint = ENDPOINTS[path]
    return endpoint.meter(endpoint.read(call_of(request or {})), content_type.encode())


def test_there_are_fixtures() -> None:
    assert {"openai_responses", "openai_responses_stream", "openai_embeddings"} <= set(NAMES)
    assert sum(path.parent == OWN for path in PATHS) >= 50


@pytest.mark.wire(
    "1b.1", "1b.2", "1b.4", "1b.5", "1b.6", "1b.7", "1b.8", "1b.9", "1b.11", "4.2", "4.3", "5.3", "5.4", "5.9"
)
@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_fixture_at_every_split(path: Path) -> None:
    expect = json.loads(path.read_text())
    body = (path.parent / expect["body"]).read_bytes()
    # The given fixtures spell zeros out, and usage never has them.
    wanted = expect["meter"] and {name: value for name, value in expect["meter"].items() if value}
    model = None if wanted is None else wanted.pop("model", None)
    for pieces in splits(body):
        meter = meter_for(
            expect["request"]["path"], content_type=expect["http"]["content_type"], request=expect["request"]
        )
        assert fed(meter, pieces) == body
        assert meter.usage() == wanted
        assert wanted is None or meter.model == model
        assert meter.done == expect.get("done", True)
        for name in ("output_seen", "estimate"):
            assert name not in expect or getattr(meter, name)() == expect[name]
        assert meter.content_bytes == expect.get("content_bytes", meter.content_bytes)
