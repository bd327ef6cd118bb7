"""OpenAI responses: what a request asks for and what an answer used (wire.md sections 1b, 1c and 6h).

xAI's flavour is the same, but that it reports the exact cost, and that it counts searches inside `usage` (wire.md 4).
"""

import re
from collections.abc import Iterable
from typing import Any, ClassVar

from gateway.dialects import body as json_body
from gateway.dialects import fields
from gateway.dialects.meter import MOST_TICKS, CountTab, Events, Meter, Tab, Usage, Whole, buckets, count, inner, text
from gateway.dialects.openai import options
from gateway.dialects.shape import Asked, Call, Outgoing

CAP_FIELD = "max_output_tokens"
_TERMINAL = ("response.completed", "response.incomplete", "response.failed")
_TELLING = (*_TERMINAL, "response.created")  # the events that carry the response
# What a web search call did beside searching; that is not billed.
_NO_SEARCH = ("open_page", "find_in_page")


class Responses:
    """POST /responses."""

    name = "responses"
    free = False
    _path = "/responses"
    _capped = True
    _writes = True

    def read(self, call: Call) -> Asked:
        parsed, plain = json_body.read_object(call.body)
        hosted = options.hosted(parsed)
        bound = fields.whole(parsed, "max_tool_calls")
        refers = options.refers(plain)
        return Asked(
            model=fields.model(parsed),
            streamed=fields.flag(parsed, "stream"),
            cap=fields.whole(parsed, CAP_FIELD) if self._capped else None,
            writes=self._writes,
            by_reference=hosted or (refers and options.opaque(plain)) or _has_hidden_reasoning(parsed),
            searches=(bound or options.SEARCHES) if hosted else 0,
            variants=options.variants(parsed),
            sticky=fields.word(parsed, "prompt_cache_key"),
            stored=_stored(parsed, inside=refers),
            capped=self._capped,
            parsed=parsed,
        )

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        body = fields.put_model(call.body, asked.model, model)
        if cap is not None and self._capped:
            body = fields.put(body, asked.parsed, CAP_FIELD, cap)
        return Outgoing(self._path, body)

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        del asked
        if content_type.startswith(b"text/event-stream"):
            return Meter(ResponsesStreamTab(), Events())
        return Meter(ResponsesTab(), Whole())


class ResponsesCompact(Responses):
    """POST /responses/compact: a conversation made shorter, metered like a response; it has no field for a cap."""

    name = "responses.compact"
    _path = "/responses/compact"
    _capped = False


class ResponsesInputTokens(Responses):
    """POST /responses/input_tokens: counting, which costs nothing."""

    name = "responses.input_tokens"
    free = True
    _path = "/responses/input_tokens"
    _capped = False
    _writes = False

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        del asked, content_type
        return Meter(CountTab(), Whole())


def _items(parsed: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The items of the input that are objects; none if it is text."""
    found = parsed.get("input")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else ()


def _stored(parsed: dict[str, Any], *, inside: bool = True) -> str | None:
    """The first reference to something stored with the provider, wherever the request has it (wire.md 6h).

    `inside`: whether names inside the input are to be looked for.
    """
    found = options.stored(parsed)
    if found is not None:
        return found
    if parsed.get("prompt") is not None:
        return "prompt"
    if inner(parsed, "prompt_cache_options").get("comparison_response_id") is not None:
        return "comparison_response_id"
    for item in _items(parsed):
        kind = item.get("type")
        # An item that is nothing but an id is looked up, and so is a picture that was made before.
        if kind == "item_reference" or (kind is None and "id" in item and "content" not in item):
            return "item_reference"
        if kind == "image_generation_call" and not item.get("result"):
            return "image_generation_call"
    return options.stored_inside([parsed.get("input"), parsed.get("tools")]) if inside else None


def _has_hidden_reasoning(parsed: dict[str, Any]) -> bool:
    """Whether earlier reasoning is named by its id alone: the provider puts in what it has of it."""
    reasoning = [item for item in _items(parsed) if item.get("type") == "reasoning"]
    return any(not item.get("encrypted_content") and not item.get("content") for item in reasoning)


class ResponsesTab(Tab):
    """Usage of one response: `usage`, and beside it `tool_usage`, which is billed too and may be missing."""

    written: ClassVar[re.Pattern[bytes]] = re.compile(
        rb'"(?:text|refusal|arguments|code|input|summary)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL
    )

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Any] | None = None
        self._tools: dict[str, Any] | None = None
        self._tier: str | None = None
        self._searches = 0

    def read(self, document: dict[str, Any]) -> bool:
        self._take(document)
        return False

    def _take(self, response: dict[str, Any]) -> None:
        self.model = text(response, "model") or self.model
        self._tier = text(response, "service_tier") or self._tier
        found, tools = response.get("usage"), response.get("tool_usage")
        if isinstance(found, dict):
            self._usage = found
        if isinstance(tools, dict):
            self._tools = tools
        self._searches = _search_calls(response.get("output"))

    def usage(self) -> Usage | None:
        if self._usage is None:
            return None
        prompt, inputs = count(self._usage, "input_tokens"), inner(self._usage, "input_tokens_details")
        cached, split = count(inputs, "cached_tokens"), inner(inputs, "cache_write_tokens_details")
        half_hour, half_day = count(split, "ttl_30m_tokens"), count(split, "ttl_12h_tokens")
        written = max(count(inputs, "cache_write_tokens"), half_hour + half_day)
        outputs, drawn = inner(self._usage, "output_tokens_details"), inner(self._tools, "image_gen")
        return buckets(
            input_uncached=max(prompt - cached - written, 0),
            cache_read=cached,
            cache_write=written - half_hour - half_day,
            cache_write_30m=half_hour,
            cache_write_12h=half_day,
            output=count(self._usage, "output_tokens"),
            output_reasoning=count(outputs, "reasoning_tokens"),
            input_audio=count(inputs, "audio_tokens"),
            input_image=count(inputs, "image_tokens"),
            output_audio=count(outputs, "audio_tokens"),
            web_searches=self._billed_searches(),
            # Its cached tokens are billed as the others: there is no rate for them. Nor is the `svg_usage` of single
            # image_generation_call items counted, which may have a model of its own (wire.md 1c).
            tool_image_input=count(drawn, "input_tokens"),
            tool_image_output=count(drawn, "output_tokens"),
            cost_usd_ticks=count(self._usage, "cost_in_usd_ticks", most=MOST_TICKS),
            service_tier=self._tier,
        )

    def _billed_searches(self) -> int:
        """As they are reported; only where nothing is, the calls that can be seen."""
        reported = inner(self._tools, "web_search")
        if reported:
            return count(reported, "num_requests")
        reported = inner(self._usage, "server_side_tool_usage_details")
        return count(reported, "web_search_calls") if reported else self._searches


def _search_calls(output: Any) -> int:
    """How many items of an output are searches of the web."""
    if not isinstance(output, list):
        return 0
    calls = [item for item in output if isinstance(item, dict) and item.get("type") == "web_search_call"]
    return sum(inner(call, "action").get("type") not in _NO_SEARCH for call in calls)


class ResponsesStreamTab(ResponsesTab):
    """A stream of events: usage is in the last of them only, which has all the text again that the deltas had."""

    marks: ClassVar[tuple[bytes, ...]] = tuple(name.encode() for name in _TELLING)
    written: ClassVar[re.Pattern[bytes]] = re.compile(rb'"delta"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL)

    def read(self, document: dict[str, Any]) -> bool:
        kind, response = document.get("type"), document.get("response")
        if isinstance(response, dict) and kind in _TELLING:
            self._take(response)
        if kind in _TERMINAL:
            self.done = True
        return False
