"""What Gemini is sent: the model in the path and wherever a body names it, and a cap inside the configuration."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.body import BadBody
from gateway.dialects.gemini.generate import (
    BatchEmbedContents,
    CountTokens,
    EmbedContent,
    GenerateContent,
    StreamGenerateContent,
)
from gateway.dialects.shape import Call, Outgoing
from tests.unit.test_gemini_requests import FILE, INLINE, TARGET, call


@pytest.mark.wire("0.5", "3a.2", "3a.3")
@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-own", "/v1beta/models/gemini-own:generateContent"),
        ("gemini-x@001", "/v1beta/models/gemini-x@001:generateContent"),
        ("models/gemini-x", "/v1beta/models/gemini-x:generateContent"),
        ("tunedModels/mine-1", "/v1beta/tunedModels/mine-1:generateContent"),
        ("odd name?#:%", "/v1beta/models/odd%20name%3F%23%3A%25:generateContent"),
    ],
)
def test_the_providers_path(model: str, path: str) -> None:
    sent = call()
    assert GenerateContent().write(sent, GenerateContent().read(sent), model=model, cap=None) == Outgoing(
        path, sent.body
    )


@pytest.mark.wire("3b.5")
@pytest.mark.parametrize(
    ("query", "ending"), [(b"", ""), (b"alt=sse", "?alt=sse"), (b"key=weir_x&alt=sse", "?alt=sse"), (b"alt=json", "")]
)
def test_events_only_for_those_who_ask(query: bytes, ending: str) -> None:
    sent = call(query=query)
    stream = StreamGenerateContent()
    path = stream.write(sent, stream.read(sent), model="gemini-own", cap=None).path
    assert path == "/v1beta/models/gemini-own:streamGenerateContent" + ending
    plain = GenerateContent()
    assert plain.write(sent, plain.read(sent), model="gemini-own", cap=None).path.endswith(":generateContent")


@pytest.mark.wire("3c.1", "5.4")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"contents": [] }', b'{"contents": [] ,"generationConfig":{"maxOutputTokens":64}}'),
        (b"{ }", b'{ "generationConfig":{"maxOutputTokens":64}}'),
        (b'{"generationConfig" : null , "a": 1.0}', b'{"generationConfig" : {"maxOutputTokens":64} , "a": 1.0}'),
        (b'{"generation_config": {} }', b'{"generation_config": {"maxOutputTokens":64} }'),
        (
            b'{"generationConfig": {"topP": 0.50 } , "contents": [{"generationConfig": {}}]}',
            b'{"generationConfig": {"topP": 0.50 ,"maxOutputTokens":64} , "contents": [{"generationConfig": {}}]}',
        ),
        (
            b'{"generationConfig": {"max_output_tokens" : null, "stopSequences": ["}"]}}',
            b'{"generationConfig": {"max_output_tokens" : 64, "stopSequences": ["}"]}}',
        ),
        (
            b'{"gener\\u0061tionConfig": {"maxOutputTokens": null}}',
            b'{"gener\\u0061tionConfig": {"maxOutputTokens": 64}}',
        ),
    ],
)
def test_a_cap_is_put_inside_the_configuration(before: bytes, after: bytes) -> None:
    sent = Call(before, target=TARGET)
    found = GenerateContent().read(sent)
    assert found.cap is None
    assert GenerateContent().write(sent, found, model="gemini-own", cap=64).body == after
    assert GenerateContent().read(Call(after, target=TARGET)).cap == 64


@pytest.mark.wire("3a.2")
def test_the_providers_name_wherever_the_body_has_one() -> None:
    batch = BatchEmbedContents()
    body = (
        b'{"requests": [ {"model":"models/gemini-own", "content": {}} ,{"model" : "gemini-own"},{"model": null}, {}]}'
    )
    sent = Call(body, target=TARGET)
    found = batch.read(sent)
    assert batch.write(sent, found, model="gemini-own", cap=None) == Outgoing(
        "/v1beta/models/gemini-own:batchEmbedContents",
        body,
    )
    assert batch.write(sent, found, model="gemini-x", cap=None) == Outgoing(
        "/v1beta/models/gemini-x:batchEmbedContents",
        b'{"requests": [ {"model":"models/gemini-x", "content": {}} ,{"model" : "models/gemini-x"},{"model": null}, {}]}',
    )
    counted = Call(b'{"generateContentRequest": {"model": "models/gemini-own", "contents": []}}', target=TARGET)
    outgoing = CountTokens().write(counted, CountTokens().read(counted), model="tunedModels/x", cap=None)
    assert outgoing == Outgoing(
        "/v1beta/tunedModels/x:countTokens",
        b'{"generateContentRequest": {"model": "tunedModels/x", "contents": []}}',
    )


@pytest.mark.wire("3a.2")
@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (GenerateContent(), {"model": "models/dearer"}),
        (EmbedContent(), {"model": "models/dearer", "content": {}}),
        (BatchEmbedContents(), {"requests": [{"model": "models/gemini-own"}, {"model": "models/dearer"}]}),
        (BatchEmbedContents(), {"requests": [{"model": ["models/gemini-own"]}]}),
        (CountTokens(), {"generateContentRequest": {"model": "models/dearer"}}),
        (CountTokens(), {"generate_content_request": {"model": "models/dearer"}}),
    ],
)
def test_another_model_in_the_body_than_in_the_path_is_refused(endpoint: GenerateContent, body: dict[str, Any]) -> None:
    with pytest.raises(BadBody, match="the model that the path names"):
        endpoint.read(Call(json.dumps(body).encode(), target=TARGET))


@pytest.mark.wire("3b.7")
def test_embeddings_write_nothing() -> None:
    found = EmbedContent().read(Call(b'{"content": {"parts": [{"text": "Hi"}]}}', target=TARGET))
    assert (found.writes, found.capped, found.cap, found.by_reference) == (False, False, None, False)
    pictured = json.dumps({"requests": [{"content": {"parts": [INLINE]}}, {"content": {"parts": [FILE]}}]}).encode()
    batch = BatchEmbedContents().read(Call(pictured, target=TARGET))
    assert (batch.by_reference, batch.stored, batch.model) == (True, "fileData", "gemini-own")


def test_names_and_what_is_free() -> None:
    endpoints = (GenerateContent(), StreamGenerateContent(), EmbedContent(), BatchEmbedContents(), CountTokens())
    assert [endpoint.name for endpoint in endpoints] == [
        "generate_content",
        "stream_generate_content",
        "embed_content",
        "batch_embed_contents",
        "count_tokens",
    ]
    assert [endpoint.free for endpoint in endpoints] == [False, False, False, False, True]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=6), inside, max_size=3),
    max_leaves=10,
)
CONFIGS = st.none() | st.dictionaries(
    st.text(max_size=4) | st.sampled_from(["topP", "stopSequences"]), VALUES, max_size=3
)


@pytest.mark.wire("3c.1")
@given(
    st.dictionaries(st.sampled_from(["contents", "systemInstruction", "tools", "labels", "x"]), VALUES),
    st.sampled_from(["generationConfig", "generation_config", None]),
    CONFIGS,
    st.booleans(),
)
def test_any_body_is_read_or_refused_and_capped_with_nothing_lost(
    more: dict[str, Any], name: str | None, config: dict[str, Any] | None, spaced: bool
) -> None:
    whole = {**more, **({} if name is None else {name: config})}
    sent = Call(json.dumps(whole, indent=1 if spaced else None).encode(), target=TARGET)
    try:
        found = StreamGenerateContent().read(sent)
    except BadBody:
        return
    outgoing = StreamGenerateContent().write(sent, found, model="gemini-x", cap=77)
    capped = {**(config or {}), "maxOutputTokens": 77} if name else {"maxOutputTokens": 77}
    assert json.loads(outgoing.body) == {**whole, name or "generationConfig": capped}
