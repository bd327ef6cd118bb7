"""What a request for content asks for, as far as its price depends on it."""

import json
from typing import Any

import pytest

from gateway.dialects.body import BadBody
from gateway.dialects.gemini.generate import CountTokens, GenerateContent, StreamGenerateContent
from gateway.dialects.shape import Asked, Call

TARGET = ("v1beta", "gemini-own")
FILE = {"fileData": {"mimeType": "video/mp4", "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}}
VIDEO = {"fileData": {"fileUri": "https://www.youtube.com/watch?v=x"}}
INLINE = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}


def call(*, query: bytes = b"", target: tuple[str, str] = TARGET, **more: Any) -> Call:
    return Call(json.dumps({"contents": [{"parts": [{"text": "Hi"}]}], **more}).encode(), query=query, target=target)


def asked(**more: Any) -> Asked:
    return GenerateContent().read(call(**more))


def saying(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "parts": list(parts)}]


@pytest.mark.wire("3a.2", "3c.1", "5.2")
def test_the_plain_request() -> None:
    found = asked()
    assert (found.model, found.cap, found.choices, found.streamed, found.writes) == ("gemini-own", None, 1, False, True)
    assert (found.by_reference, found.searches, found.variants, found.stored) == (False, 0, (), None)
    assert found.capped
    assert StreamGenerateContent().read(call()).streamed, "the path says so, not the body"
    for name in ("models/gemini-own", "gemini-own"):
        assert GenerateContent().read(call(target=("v1", name))).model == "gemini-own"
    assert GenerateContent().read(call(target=("v1", "tunedModels/x"))).model == "tunedModels/x"


@pytest.mark.wire("3c.1")
@pytest.mark.parametrize(
    "more",
    [
        {"generationConfig": {"maxOutputTokens": 7, "candidateCount": 3}},
        {"generation_config": {"max_output_tokens": 7, "candidate_count": 3}},
        {"generationConfig": {"max_output_tokens": 7, "candidateCount": 3}},
        {"generation_config": {"maxOutputTokens": 7, "candidate_count": 3}},
    ],
)
def test_the_cap_in_either_spelling(more: dict[str, Any]) -> None:
    found = asked(**more)
    assert (found.cap, found.choices) == (7, 3)


@pytest.mark.wire("3c.1")
@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"generationConfig": {}, "generation_config": {}}, "generationConfig"),
        ({"generationConfig": None, "generation_config": {"maxOutputTokens": 7}}, "generationConfig"),
        ({"generationConfig": {"maxOutputTokens": 7, "max_output_tokens": 7}}, "maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": 7, "max_output_tokens": None}}, "maxOutputTokens"),
        ({"generation_config": {"candidateCount": 1, "candidate_count": 8}}, "candidateCount"),
        ({"serviceTier": "flex", "service_tier": "priority"}, "serviceTier"),
        ({"cachedContent": None, "cached_content": "cachedContents/x"}, "cachedContent"),
        ({"contents": saying({"fileData": {"fileUri": "https://x.test", "file_uri": "files/x"}})}, "fileUri"),
    ],
)
def test_both_spellings_at_once_are_refused(more: dict[str, Any], name: str) -> None:
    with pytest.raises(BadBody, match=f"'{name}' is there in two spellings"):
        asked(**more)


@pytest.mark.wire("6.10")
@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"generationConfig": []}, "generationConfig"),
        ({"generation_config": "x"}, "generation_config"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": "7"}}, "maxOutputTokens"),
        ({"generationConfig": {"max_output_tokens": 7.5}}, "max_output_tokens"),
        ({"generationConfig": {"candidateCount": -1}}, "candidateCount"),
        ({"tools": {"googleSearch": {}}}, "tools"),
        ({"tools": ["googleSearch"]}, "tools"),
        ({"serviceTier": 2}, "serviceTier"),
        ({"model": "another"}, "model"),
        ({"model": 7}, "model"),
    ],
)
def test_what_cannot_be_quoted_is_refused_by_its_name(more: dict[str, Any], name: str) -> None:
    with pytest.raises(BadBody, match=f"'{name}'"):
        asked(**more)


@pytest.mark.wire("6.10")
@pytest.mark.parametrize(
    "body", [b'{"generationConfig": {"maxOutputTokens": 1, "maxOutputTokens": 9}}', b'{"contents": [], "contents": []}']
)
def test_a_name_twice_is_refused(body: bytes) -> None:
    with pytest.raises(BadBody, match="twice"):
        GenerateContent().read(Call(body, target=TARGET))


@pytest.mark.wire("3b.8", "8.2")
@pytest.mark.parametrize(
    "more",
    [
        {"contents": saying(INLINE)},
        {"contents": saying({"inline_data": {"data": "aGk="}})},
        {"contents": saying(VIDEO)},
        {"contents": saying({"file_data": {"file_uri": "https://www.youtube.com/watch?v=x"}})},
        {"contents": saying({"functionResponse": {"name": "f", "response": {}, "parts": [INLINE]}})},
        {"systemInstruction": {"parts": [INLINE]}},
        {"cachedContent": "cachedContents/x"},
        {"generationConfig": {"continuationToken": "dG9rZW4="}},
        {"tools": [{"googleSearch": {}}]},
        {"tools": [{"functionDeclarations": []}, {"url_context": {}}]},
        {"tools": [{"functionDeclarations": [], "codeExecution": {}}]},
        {"tools": [{"mcpServers": [{}]}]},
        {"tools": [{"notKnownYet": {}}]},
    ],
)
def test_content_that_the_body_does_not_show(more: dict[str, Any]) -> None:
    assert asked(**more).by_reference
    escaped = (
        json.dumps(more).replace("inline", "inl\\u0069ne").replace("file", "f\\u0069le").replace("tools", "t\\u006fols")
    )
    assert GenerateContent().read(Call(escaped.encode(), target=TARGET)).by_reference, (
        "an escaped name is the same name"
    )


@pytest.mark.wire("8.1")
@pytest.mark.parametrize(
    "more",
    [
        {"contents": saying({"text": '{"inlineData": {"fileUri": "files/x"}}'})},
        {"contents": saying({"functionCall": {"name": "f", "args": {"tools": 1, "url": "https://x.test/files/1"}}})},
        {"tools": [{"functionDeclarations": [{"name": "googleSearch"}]}, {"function_declarations": []}]},
        {"tools": [{"computerUse": {"environment": "ENVIRONMENT_BROWSER"}, "googleSearch": None}]},
        {"tools": None, "cachedContent": None, "serviceTier": None, "generationConfig": None},
        {"model": "models/gemini-own"},
        {"model": "gemini-own"},
    ],
)
def test_content_that_the_body_shows(more: dict[str, Any]) -> None:
    found = asked(**more)
    assert (found.by_reference, found.stored, found.searches, found.cap) == (False, None, 0, None)


@pytest.mark.wire("3b.4", "8.4")
@pytest.mark.parametrize(
    ("model", "tools", "searches"),
    [
        ("gemini-3-pro", [{"googleSearch": {}}], 10),
        ("gemini-3-pro", [{"google_search": {}}, {"googleSearchRetrieval": {}}], 10),
        ("gemini-2.5-pro", [{"googleSearch": {}}], 1),
        ("gemini-1.5-flash", [{"google_search_retrieval": {}}], 1),
        ("any-name", [{"urlContext": {}, "codeExecution": {}}], 0),
        ("any-name", [{"fileSearch": {}}], 0),
    ],
)
def test_searches(model: str, tools: list[dict[str, Any]], searches: int) -> None:
    assert GenerateContent().read(call(target=("v1", model), tools=tools)).searches == searches


@pytest.mark.wire("7.1")
@pytest.mark.parametrize("tool", ["googleMaps", "google_maps"])
def test_a_tool_without_a_price_is_refused(tool: str) -> None:
    with pytest.raises(BadBody, match="no price"):
        asked(tools=[{tool: {}}])


@pytest.mark.wire("6h.1")
@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"cachedContent": "cachedContents/x"}, "cachedContent"),
        ({"cached_content": "cachedContents/x"}, "cachedContent"),
        ({"contents": saying(FILE)}, "fileData"),
        ({"contents": saying({"file_data": {"file_uri": "files/abc"}})}, "fileData"),
        ({"contents": saying({"fileData": {"fileUri": "https://x.test/v1beta%2Ffiles%2Fabc"}})}, "fileData"),
        ({"contents": saying({"functionResponse": {"parts": [FILE]}})}, "fileData"),
        ({"systemInstruction": {"parts": [FILE]}}, "fileData"),
        ({"tools": [{"fileSearch": {"fileSearchStoreNames": ["fileSearchStores/x"]}}]}, "fileSearch"),
        ({"contents": saying(VIDEO)}, None),
        ({"contents": saying(INLINE)}, None),
    ],
)
def test_what_is_stored_with_the_provider(more: dict[str, Any], field: str | None) -> None:
    assert asked(**more).stored == field
    assert CountTokens().read(call(**more)).stored == field, "to count what another stored is to read it"
    inside = Call(json.dumps({"generateContentRequest": {"contents": [], **more}}).encode(), target=TARGET)
    assert CountTokens().read(inside).stored == field
    for plain, escaped in ((b"/", b"\\/"), (b"fileUri", b"f\\u0069leUri")):
        spelt = call(**more).body.replace(plain, escaped)
        assert GenerateContent().read(Call(spelt, target=TARGET)).stored == field


@pytest.mark.wire("7.1", "8.4")
@pytest.mark.parametrize(
    ("tier", "variants"),
    [
        (None, ()),
        ("unspecified", ()),
        ("STANDARD", ()),
        ("SERVICE_TIER_STANDARD", ()),
        ("flex", ("flex",)),
        ("PRIORITY", ("priority",)),
        ("new", ("new",)),
    ],
)
def test_which_tier_may_serve(tier: str | None, variants: tuple[str, ...]) -> None:
    """Nothing said is the standard tier; a name that the price does not have is refused."""
    assert asked(serviceTier=tier).variants == asked(service_tier=tier).variants == variants
