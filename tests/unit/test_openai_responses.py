"""Responses, compaction, counting and completions: what a request asks for, and which bytes go to the provider."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.dialects.body import BadBody
from gateway.dialects.openai import options
from gateway.dialects.openai.completions import Completions
from gateway.dialects.openai.responses import Responses, ResponsesCompact, ResponsesInputTokens
from gateway.dialects.shape import Asked, Call, Endpoint, Outgoing
from tests.unit.test_openai_fixtures import fed, meter_for

RESPONSES, COMPLETIONS = Responses(), Completions()


def asked(endpoint: Endpoint = RESPONSES, **body: Any) -> Asked:
    return endpoint.read(Call(json.dumps({"model": "m", **body}).encode()))


def said(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    """An input of one message with these parts."""
    return [{"role": "user", "content": list(parts)}]


def sent(body: bytes, *, model: str = "m", cap: int | None = None, endpoint: Endpoint = RESPONSES) -> Outgoing:
    call = Call(body)
    return endpoint.write(call, endpoint.read(call), model=model, cap=cap)


@pytest.mark.wire("1c.1", "5.2")
def test_plain_text_is_read() -> None:
    found = asked(input="Hello", max_output_tokens=99, stream=True)
    assert replace(found, parsed=None) == Asked(model="m", streamed=True, cap=99, variants=None)
    assert asked(input="Hello").cap is None
    assert asked(input="Hello").capped


@pytest.mark.wire("1c.4")
@pytest.mark.parametrize("endpoint", [Responses(), ResponsesCompact(), ResponsesInputTokens(), COMPLETIONS])
def test_the_model_is_required_although_the_api_makes_it_optional(endpoint: Endpoint) -> None:
    for body in (b'{"prompt":{"id":"pmpt_1"}}', b'{"model":null}', b'{"model":""}', b'{"model":["m"]}'):
        with pytest.raises(BadBody, match="model"):
            endpoint.read(Call(body))


@pytest.mark.wire("6.10")
@pytest.mark.parametrize("bad", [{"max_output_tokens": -1}, {"stream": "yes"}, {"max_tool_calls": 1.5}])
def test_what_a_quote_cannot_read_is_refused(bad: dict[str, Any]) -> None:
    hosted = [{"type": "web_search"}]
    with pytest.raises(BadBody, match=next(iter(bad))):
        asked(tools=hosted, **bad)


@pytest.mark.wire("8.2")
@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "input_file", "file_data": "AAAA", "filename": "a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
    ],
)
def test_content_that_is_no_text_may_be_as_long_as_the_model_takes(part: dict[str, Any]) -> None:
    found = asked(input=said(part))
    assert found.by_reference
    assert found.stored is None
    assert not asked(input=said({"type": "input_text", "text": "see image_url"})).by_reference


@pytest.mark.wire("6h.1", "8.2")
def test_an_escape_hides_no_name() -> None:
    escaped = rb'{"model":"m","input":[{"role":"user","content":[{"type":"input\u005fimage","image\u005Furl":"x"}]}]}'
    assert RESPONSES.read(Call(escaped)).by_reference
    escaped = rb'{"model":"m","previous\u005fresponse_id":"resp_1","input":[{"content":[{"file\u005fid":"file-1"}]}]}'
    assert RESPONSES.read(Call(escaped)).stored == "previous_response_id"


@pytest.mark.wire("6h.1")
@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"prompt_cache_options": {"comparison_response_id": "resp_1"}}, "comparison_response_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
        ({"input": [{"id": "msg_1"}]}, "item_reference"),
        ({"input": [{"type": "image_generation_call", "id": "ig_1"}]}, "image_generation_call"),
        ({"input": said({"type": "input_image", "file_id": "file-1"})}, "file_id"),
        ({"input": said({"type": "input_file", "file_id": "file-1"})}, "file_id"),
        ({"input": [{"type": "computer_call_output", "output": {"file_id": "file-1"}}]}, "file_id"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "vector_store_ids"),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "container"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}]}, "file_ids"),
        ({"tools": [{"type": "shell", "environment": {"container_id": "cntr_1"}}]}, "container_id"),
        ({"tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file-1"}}]}, "file_id"),
    ],
)
def test_what_is_stored_with_the_provider_is_named(body: dict[str, Any], name: str) -> None:
    assert asked(**body).stored == name


@pytest.mark.wire("6h.1")
@pytest.mark.parametrize(
    "body",
    [
        {"previous_response_id": None, "conversation": None, "prompt": None, "background": False, "store": True},
        {"metadata": {"file_id": "mine"}},
        {"input": [{"id": "msg_1", "role": "assistant", "content": "It is in the request."}]},
        {"input": [{"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "output_text"}]}]},
        {"input": [{"content": [{"text": "x", "annotations": [{"type": "file_citation", "file_id": "file-1"}]}]}]},
        {"input": [{"type": "file_search_call", "id": "fs_1", "results": [{"file_id": "file-1"}]}]},
        {"input": [{"type": "image_generation_call", "id": "ig_1", "result": "AAAA"}]},
        {"tools": [{"type": "function", "name": "f", "parameters": {"properties": {"file_id": {"type": "string"}}}}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
    ],
)
def test_what_only_looks_stored_is_served(body: dict[str, Any]) -> None:
    assert asked(**body).stored is None


@pytest.mark.wire("6h.1")
def test_depth_exhausts_nothing() -> None:
    deep = b'{"model":"m","input":' + b'[{"content":' * 100 + b'[{"file_id":"file-1"}]' + b"}]" * 100 + b"}"
    assert RESPONSES.read(Call(deep)).stored == "file_id"


@pytest.mark.wire("8.2", "8.5")
@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search"},
        {"type": "web_search_preview_2025_03_11"},
        {"type": "file_search", "vector_store_ids": []},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "image_generation"},
        {"type": "mcp", "server_label": "s", "server_url": "https://example.com"},
        {"type": "computer"},
        {"type": "computer_use_preview"},
        {"type": "shell"},
        {"type": "shell", "environment": {"type": "container_auto"}},
        {"type": "made_up_tomorrow"},
        "nonsense",
    ],
)
def test_hosted_tools_read_and_search_more_than_the_request_shows(tool: Any) -> None:
    found = asked(input="x", tools=[tool])
    assert found.by_reference
    assert found.searches == options.SEARCHES
    assert asked(input="x", tools=[tool], max_tool_calls=3).searches == 3
    brought = asked(input=[{"type": "additional_tools", "role": "developer", "tools": [tool]}])
    assert brought.searches == options.SEARCHES


@pytest.mark.wire("8.5")
def test_the_callers_own_tools_are_not_hosted() -> None:
    own = [{"type": kind} for kind in ("function", "custom", "local_shell", "apply_patch", "namespace")]
    own.append({"type": "shell", "environment": {"type": "local"}})  # type: ignore[dict-item]
    found = asked(input="x", tools=own, max_tool_calls=3)
    assert not found.by_reference
    assert found.searches == 0
    listed = asked(input=[{"type": "mcp_list_tools", "id": "l", "server_label": "s", "tools": [{"name": "t"}]}])
    assert not listed.by_reference


@pytest.mark.wire("8.2")
def test_reasoning_that_is_named_by_its_id_is_not_in_the_body() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    assert asked(input=[thought]).by_reference
    assert not asked(input=[{**thought, "encrypted_content": "gAAAA"}]).by_reference
    assert not asked(input=[{**thought, "content": [{"type": "reasoning_text", "text": "x"}]}]).by_reference


@pytest.mark.wire("1b.6", "8.4")
@pytest.mark.parametrize(
    ("tier", "variants"),
    [
        (None, None),
        ("auto", None),
        ("default", ()),
        ("flex", ("flex",)),
        ("priority", ("priority",)),
        ("fast", ("priority",)),
        ("ultrafast", ("ultrafast",)),
    ],
)
def test_the_tiers_that_may_serve(tier: str | None, variants: tuple[str, ...] | None) -> None:
    assert asked(input="x", service_tier=tier).variants == variants
    assert asked(COMPLETIONS, prompt="x", service_tier=tier).variants == variants


@pytest.mark.wire("1c.1", "5.4")
def test_a_cap_and_a_model_are_spliced_and_nothing_else() -> None:
    body = b'{ "model" : "m", "input": "1.10" , "stream":true}'
    assert sent(body) == Outgoing("/responses", body)
    assert sent(body, model="n", cap=4096).body == (
        b'{ "model" : "n", "input": "1.10" , "stream":true,"max_output_tokens":4096}'
    )
    null = b'{"model":"m","max_output_tokens":null}'
    assert sent(null, cap=4096).body == b'{"model":"m","max_output_tokens":4096}'


@pytest.mark.wire("8.3")
def test_compaction_has_no_field_for_a_cap() -> None:
    body = b'{"model":"m","input":"x"}'
    compact = ResponsesCompact()
    found = compact.read(Call(body))
    assert (found.cap, found.capped, found.writes, compact.free) == (None, False, True, False)
    assert sent(body, model="n", cap=4096, endpoint=compact) == Outgoing(
        "/responses/compact", b'{"model":"n","input":"x"}'
    )
    assert asked(compact, previous_response_id="resp_1").stored == "previous_response_id"


@pytest.mark.wire("1a.6")
def test_counting_is_free_and_writes_nothing() -> None:
    counting = ResponsesInputTokens()
    found = asked(counting, input=said({"type": "input_file", "file_id": "file-1"}))
    assert counting.free
    assert (found.writes, found.capped, found.stored) == (False, False, "file_id")
    assert sent(b'{"model":"m"}', cap=9, endpoint=counting) == Outgoing("/responses/input_tokens", b'{"model":"m"}')


@pytest.mark.wire("1c.2")
@pytest.mark.parametrize(
    ("body", "choices"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"best_of": 5}, 5),
        ({"n": 2, "best_of": 5}, 5),
        ({"n": 5, "best_of": 2}, 5),
        ({"prompt": ["a", "b", "c"], "n": 2}, 6),
        ({"prompt": [[1, 2], [3]], "best_of": 4}, 8),
        ({"prompt": [1, 2, 3, 4]}, 1),
        ({"prompt": []}, 1),
        ({"prompt": "abc", "n": None}, 1),
    ],
)
def test_every_completion_that_is_written_is_held_for(body: dict[str, Any], choices: int) -> None:
    assert asked(COMPLETIONS, **body).choices == choices


@pytest.mark.wire("1c.1")
def test_completions_have_a_cap_of_their_own_and_none_is_spliced() -> None:
    body = b'{"model":"m","prompt":"x"}'
    found = COMPLETIONS.read(Call(body))
    assert (found.cap, found.capped) == (16, False)
    assert sent(body, cap=4096, endpoint=COMPLETIONS) == Outgoing("/completions", body)
    assert asked(COMPLETIONS, prompt="x", max_tokens=500).cap == 500
    assert asked(COMPLETIONS, prompt="x", max_tokens=None).cap == 16


@pytest.mark.wire("1b.3")
def test_the_usage_switch_of_completions_keeps_the_other_options() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_obfuscation":false,"include_usage":false}}'
    out = sent(body, endpoint=COMPLETIONS).body
    assert out == b'{"model":"m","stream":true,"stream_options":{"include_obfuscation":false,"include_usage":true}}'
    assert sent(b'{"model":"m","stream":true}', endpoint=COMPLETIONS).body == (
        b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    )
    kept = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    assert sent(kept, endpoint=COMPLETIONS).body == kept
    assert sent(b'{"model":"m"}', endpoint=COMPLETIONS).body == b'{"model":"m"}'


@pytest.mark.wire("1b.3")
def test_the_usage_frame_of_completions_is_swallowed_unless_it_was_asked_for() -> None:
    text = b'data: {"choices":[{"index":0,"text":"x"}],"usage":null}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    end = b"data: [DONE]\n\n"
    for stream_options, out in ((None, text + end), ({"include_usage": True}, text + usage + end)):
        request = {"json": {"model": "m", "stream": True, "stream_options": stream_options}}
        meter = meter_for("/v1/completions", content_type="text/event-stream", request=request)
        assert fed(meter, [text, usage, end]) == out
        assert meter.usage() == {"input_uncached": 3, "output": 1}
        assert meter.done


@pytest.mark.wire("1b.4")
def test_who_serves_is_known_from_the_beginning() -> None:
    created = {"type": "response.created", "response": {"model": "gpt-own", "usage": None}}
    meter = meter_for("/v1/responses", content_type="text/event-stream")
    frame = b"data: " + json.dumps(created).encode() + b"\n\n"
    assert fed(meter, [frame]) == frame
    assert (meter.model, meter.usage(), meter.done) == ("gpt-own", None, False)


@pytest.mark.wire("5.12")
@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers())))
def test_damaged_answers_do_not_break_the_meter(usage: dict[str, Any]) -> None:
    names = ("input_tokens", "input_tokens_details", "output_tokens", "output_tokens_details")
    damaged = {**usage, **dict.fromkeys(names, usage)}
    body = json.dumps({"usage": damaged, "tool_usage": usage, "output": usage, "model": usage}).encode()
    meter = meter_for("/v1/responses")
    assert fed(meter, [body]) == body
    assert meter.usage() == {}
    for junk in (b"", b"null", b"[]", b'{"usage": 5}', b"\xff\xfe", b"{"):
        for content_type in ("application/json", "text/event-stream"):
            meter = meter_for("/v1/responses", content_type=content_type)
            assert fed(meter, [junk]) == junk
            assert meter.usage() is None
