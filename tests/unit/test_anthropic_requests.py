"""What a request for a message asks for, as far as its price depends on it."""

import json
from typing import Any

import pytest

from gateway.dialects.anthropic.messages import CountTokens, Messages
from gateway.dialects.body import BadBody
from gateway.dialects.shape import Asked, Call

SEARCH = {"type": "web_search_20260318", "name": "web_search"}
FILE = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
INLINE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}


def asked(**more: Any) -> Asked:
    return Messages().read(call(**more))


def call(*, query: bytes = b"", **more: Any) -> Call:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **more}
    return Call(json.dumps(body).encode(), query=query)


def saying(*blocks: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(blocks)}]


@pytest.mark.wire("2c.1")
def test_the_plain_request() -> None:
    found = asked()
    assert (found.model, found.cap, found.choices, found.streamed, found.writes) == ("m", 9, 1, False, True)
    assert (found.by_reference, found.searches, found.variants, found.stored) == (False, 0, None, None)
    assert found.capped
    assert asked(stream=True).streamed
    assert asked(max_tokens=None).cap is None
    assert asked(max_tokens=0).cap == 0, "a request that only fills the cache"


@pytest.mark.wire("6.10")
@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 9.0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {"type": "web_search_20260318"}}, "tools"),
        ({"tools": ["web_search"]}, "tools"),
        ({"tools": [{"type": 7}]}, "type"),
        ({"tools": [{**SEARCH, "max_uses": 0}]}, "max_uses"),
        ({"service_tier": ["auto"]}, "service_tier"),
        ({"speed": 2}, "speed"),
        ({"inference_geo": {}}, "inference_geo"),
    ],
)
def test_what_cannot_be_quoted_is_refused_by_its_name(more: dict[str, Any], names: str) -> None:
    with pytest.raises(BadBody, match=f"'{names}'"):
        asked(**more)


@pytest.mark.wire("6.10")
@pytest.mark.parametrize("name", ["model", "max_tokens", "stream"])
def test_a_name_twice_is_refused(name: str) -> None:
    body = call(stream=False).body[:-1] + f', "{name}": 1}}'.encode()
    with pytest.raises(BadBody, match="twice"):
        Messages().read(Call(body))


@pytest.mark.wire("2c.2")
def test_searches() -> None:
    assert asked(tools=[SEARCH]).searches == 10
    assert asked(tools=[{**SEARCH, "max_uses": 3}]).searches == 3
    assert asked(tools=[{**SEARCH, "max_uses": 3}, {**SEARCH, "type": "web_search_20250305"}]).searches == 13
    assert asked(tools=[{"name": "web_search", "input_schema": {}}]).searches == 0, "a tool of the caller's own"
    assert asked(tools=[{"type": "web_fetch_20260318", "name": "web_fetch", "max_uses": 5}]).searches == 0


@pytest.mark.wire("8.2")
@pytest.mark.parametrize(
    "more",
    [
        {"messages": saying(INLINE)},
        {"messages": saying({"type": "image", "source": {"type": "url", "url": "https://example.test/a.png"}})},
        {"messages": saying({"type": "document", "source": {"type": "base64", "data": "JVBERg=="}})},
        {"messages": saying(FILE)},
        {"messages": saying({"type": "image", "source": {"type": "not known yet"}})},
        {"messages": saying({"type": "image", "source": {}})},
        {"messages": saying({"type": "tool_result", "tool_use_id": "t", "content": [INLINE]})},
        {"messages": saying({"type": "document", "source": {"type": "content", "content": [INLINE]}})},
        {"system": [INLINE]},
        {"tools": [SEARCH]},
        {
            "tools": [
                {"name": "mine", "input_schema": {}},
                {"type": "code_execution_20260521", "name": "code_execution"},
            ]
        },
        {"tools": [{"type": "mcp_toolset", "mcp_server_name": "s"}]},
        {"tools": [{"type": "tool_search_tool_bm25_20251119", "name": "t"}]},
        {"tools": [{"type": "not_known_yet_20270101", "name": "t"}]},
        {"mcp_servers": [{"type": "url", "url": "https://example.test", "name": "s"}]},
        {"container": "container_1"},
        {"container": {"skills": [{"type": "anthropic", "skill_id": "pdf"}]}},
        {"thread": {"type": "create"}},
        {"compaction": {"type": "summarize"}},
        {"context_management": {"edits": [{"type": "compact_20260112"}]}},
    ],
)
def test_content_that_the_body_does_not_show(more: dict[str, Any]) -> None:
    assert asked(**more).by_reference
    escaped = json.dumps({"model": "m", **more}).replace("source", "s\\u006furce").replace("tools", "to\\u006fls")
    assert Messages().read(Call(escaped.encode())).by_reference, "an escaped name is the same name"


@pytest.mark.wire("8.1")
@pytest.mark.parametrize(
    "more",
    [
        {"messages": saying({"type": "text", "text": 'an "image" from a "source": {"type": "file"}'})},
        {
            "messages": saying(
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hi"}}
            )
        },
        {"messages": saying({"type": "document", "source": {"type": "content", "content": [{"type": "text"}]}})},
        {
            "messages": saying(
                {"type": "search_result", "source": "https://example.test", "content": [{"type": "text"}]}
            )
        },
        {"messages": saying({"type": "tool_use", "name": "t", "input": {"source": {"type": "file", "file_id": "f"}}})},
        {"messages": saying({"type": "tool_result", "content": "text"})},
        {"tools": [{"name": "mine", "input_schema": {"properties": {"file_id": {}, "source": {}}}}]},
        {"tools": [{"type": "custom", "name": "mine"}, {"type": "bash_20250124", "name": "bash"}]},
        {"tools": [{"type": kind} for kind in ("text_editor_20250728", "computer_20251124", "memory_20250818")]},
        {"tools": [{"type": kind} for kind in ("computer_toolset_20260801", "browser_toolset_20260801")]},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
        {"mcp_servers": []},
        {"container": None, "system": "Be brief.", "fallbacks": []},
    ],
)
def test_content_that_the_body_shows(more: dict[str, Any]) -> None:
    found = asked(**more)
    assert (found.by_reference, found.stored) == (False, None)


@pytest.mark.wire("6h.1")
@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"container": "container_1"}, "container"),
        ({"container": {"id": None, "skills": []}}, "container"),
        ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread"),
        ({"diagnostics": {"previous_message_id": "msg_1"}}, "diagnostics"),
        ({"messages": saying(FILE)}, "file_id"),
        ({"messages": saying({"type": "tool_result", "content": [{"type": "text"}, FILE]})}, "file_id"),
        ({"messages": saying({"type": "document", "source": {"type": "content", "content": [FILE]}})}, "file_id"),
        ({"messages": saying({"type": "container_upload", "file_id": "file_1"})}, "file_id"),
        ({"system": [FILE]}, "file_id"),
    ],
)
def test_what_is_stored_with_the_provider(more: dict[str, Any], field: str) -> None:
    assert asked(**more).stored == field
    assert CountTokens().read(call(**more)).stored == field, "to count what another stored is to read it"


def test_the_deepest_nesting_is_seen_through() -> None:
    nested: Any = FILE
    for _ in range(120):
        nested = {"type": "tool_result", "content": [nested]}
    assert asked(messages=saying(nested)).stored == "file_id"


@pytest.mark.wire("2b.7", "7.1", "8.4")
@pytest.mark.parametrize(
    ("more", "variants"),
    [
        ({}, None),
        ({"service_tier": "auto"}, None),
        ({"service_tier": None, "speed": "standard", "inference_geo": "global"}, None),
        ({"service_tier": "standard_only"}, ()),
        ({"speed": "fast"}, ("fast",)),
        ({"service_tier": "standard_only", "speed": "fast"}, ("fast",)),
        ({"inference_geo": "us"}, ("us",)),
        ({"speed": "fast", "inference_geo": "us"}, ("fast", "us")),
        ({"service_tier": "new"}, ("new",)),
    ],
)
def test_who_may_serve(more: dict[str, Any], variants: tuple[str, ...] | None) -> None:
    """None is any tier of the price, as `auto` may lead to; names are refused where they have no price."""
    assert asked(**more).variants == variants


@pytest.mark.wire("2c.3", "7.1")
@pytest.mark.parametrize(
    "more",
    [
        {"fallbacks": [{"model": "dearer"}]},
        {"fallbacks": "default"},
        {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "dearer"}]},
    ],
)
def test_what_another_model_would_answer_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(BadBody, match="another model has another price"):
        asked(**more)
