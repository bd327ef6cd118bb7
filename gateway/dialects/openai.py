"""OpenAI chat completions: what a request asks for, what an answer used, and how to refuse (wire.md section 1).

Pure: bytes in, facts and bytes out. The meter forwards every byte as it came, but for the one extra usage frame that the
caller did not ask for.
"""

import re
from typing import Any, NamedTuple

import orjson

from gateway.dialects import body as json_body
from gateway.dialects.body import BadBody
from gateway.dialects.sse import Frames, data_of
from gateway.refusals import Refusal

DIALECT = "openai"
ENDPOINT = "chat.completions"
CAP_FIELD = "max_completion_tokens"
_BY_REFERENCE = (b'"image_url"', b'"input_audio"', b'"file"', b'"file_id"')
# Text that a model wrote: answers, refusals, tool arguments, and the reasoning that compatible servers show.
_WRITTEN = re.compile(
    rb'"(?:content|refusal|arguments|reasoning|reasoning_content)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL
)
_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


class Asked(NamedTuple):
    """What a chat request asks for, as far as a quote and a relay need it."""

    model: str
    streamed: bool
    cap: int | None
    choices: int
    by_reference: bool
    wants_usage: bool
    parsed: dict[str, Any]


def read_request(body: bytes) -> Asked:
    """What is asked for; BadBody with a message for the caller otherwise."""
    parsed = json_body.parse_object(body)
    model = parsed.get("model")
    if not isinstance(model, str) or not model:
        raise BadBody("The field 'model' is missing; name one of the models that GET /weir/v1/models lists.")
    options = parsed.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadBody("The field 'stream_options' must be an object.")
    streamed = parsed.get("stream") or False
    if not isinstance(streamed, bool):
        raise BadBody("The field 'stream' must be true or false.")
    # max_completion_tokens wins over its deprecated name, for the provider as for the quote (wire.md 1c).
    cap = _whole(parsed, "max_completion_tokens")
    old_cap = _whole(parsed, "max_tokens")
    return Asked(
        model=model,
        streamed=streamed,
        cap=old_cap if cap is None else cap,
        choices=_whole(parsed, "n") or 1,
        by_reference=any(mark in body for mark in _BY_REFERENCE),
        wants_usage=bool(options and options.get("include_usage")),
        parsed=parsed,
    )


def _whole(parsed: dict[str, Any], name: str) -> int | None:
    value = parsed.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise BadBody(f"The field '{name}' must be a positive whole number.")
    return value


def write_request(body: bytes, asked: Asked, *, model: str, cap: int | None) -> bytes:
    """The bytes for the provider: as they came, but for its name of the model, a cap that Weir set, and the usage switch."""
    if model != asked.model:
        body = json_body.replace_member(body, "model", model)
    if asked.streamed and not asked.wants_usage:
        options = asked.parsed.get("stream_options")
        body = _put(body, asked.parsed, "stream_options", {**(options or {}), "include_usage": True})
    if cap is not None:
        body = _put(body, asked.parsed, CAP_FIELD, cap)
    return body


def _put(body: bytes, parsed: dict[str, Any], name: str, value: Any) -> bytes:
    """Add a member, or replace the one there is (a cap that Weir sets can only be there as null)."""
    put = json_body.replace_member if name in parsed else json_body.add_member
    return put(body, name, value)


class Meter:
    """Reads a copy of an answer and finds its usage. `hide_usage` swallows the usage frame that Weir asked for."""

    def __init__(self, *, streamed: bool, hide_usage: bool) -> None:
        self._frames = Frames() if streamed else None
        self._hide = hide_usage
        self._body: list[bytes] = []
        self._usage: dict[str, Any] | None = None
        self.model: str | None = None
        self.tier: str | None = None
        self.content_frames = 0
        self.content_bytes = 0
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on now."""
        if self._frames is None:
            self._body.append(data)
            return data
        frames = self._frames.feed(data)
        if not self._hide:
            for frame in frames:
                self._look(frame)
            return data
        return b"".join([frame for frame in frames if not self._look(frame)])

    def finish(self) -> bytes:
        """The answer has ended: what is left to pass on (a frame that was never ended)."""
        if self._frames is None:
            self._read_whole(b"".join(self._body))
            return b""
        rest = self._frames.rest()
        swallow = bool(rest) and self._look(rest)
        return rest if self._hide and not swallow else b""

    def _look(self, frame: bytes) -> bool:
        """Read a frame; whether it is the usage frame that is to be swallowed."""
        mentions = frame.count(b'"usage"')
        if not mentions or (mentions == 1 and b'"usage":null' in frame):
            self._count_content(frame)
            if b"[DONE]" in frame:
                self.done = True
            return False
        try:
            chunk = orjson.loads(data_of(frame))
        except orjson.JSONDecodeError:
            return False
        self._note(chunk)
        extra = chunk.get("choices") == []
        if not extra:
            self._count_content(frame)
        return extra and self._hide

    def _count_content(self, text: bytes) -> None:
        """Count what was written for the caller to read; the JSON around it is not output."""
        written = sum(map(len, _WRITTEN.findall(text)))
        self.content_bytes += written
        self.content_frames += written > 0

    def _read_whole(self, body: bytes) -> None:
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            self._count_content(body)
            return
        if isinstance(answer, dict):
            self._note(answer)
            self.done = True
        if self._usage is None:
            self._count_content(body)

    def _note(self, answer: dict[str, Any]) -> None:
        if isinstance(answer.get("usage"), dict):
            self._usage = answer[
                "usage"
            ]  # the last one present replaces: adding up is the classic over-count (wire.md 0.7)
        if isinstance(answer.get("model"), str):
            self.model = answer["model"]
        if isinstance(answer.get("service_tier"), str):
            self.tier = answer["service_tier"]

    def usage(self) -> dict[str, int | str] | None:
        """The disjoint buckets that the provider reported, without zeros; None if it reported nothing."""
        if self._usage is None:
            return None
        prompt, completion = _count(self._usage, "prompt_tokens"), _count(self._usage, "completion_tokens")
        inputs = _details(self._usage, "prompt_tokens_details")
        outputs = _details(self._usage, "completion_tokens_details")
        cached, written = _count(inputs, "cached_tokens"), _count(inputs, "cache_write_tokens")
        buckets: dict[str, int | str] = {
            "input_uncached": max(prompt - cached - written, 0),
            "cache_read": cached,
            "cache_write": written,
            "output": completion,
            "output_reasoning": _count(outputs, "reasoning_tokens"),
            "input_audio": _count(inputs, "audio_tokens"),
            "output_audio": _count(outputs, "audio_tokens"),
            "input_image": _count(inputs, "image_tokens"),
        }
        if self.tier is not None:
            buckets["service_tier"] = self.tier
        return {name: value for name, value in buckets.items() if value}

    def output_seen(self) -> int:
        """Output tokens that the bytes seen stand for when nothing was reported; never too few (design.md section 4)."""
        return max(self.content_frames, -(-self.content_bytes // 4))


def _count(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _details(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def error_body(refusal: Refusal) -> bytes:
    """A refusal in OpenAI's shape (wire.md 1d)."""
    kind = _TYPES.get(refusal.code.status, "invalid_request_error" if refusal.code.status < 500 else "server_error")
    error = {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code.word}
    return orjson.dumps({"error": error})


def error_frame(message: str) -> bytes:
    """An error in the middle of a stream, which the SDKs raise (wire.md 1d)."""
    error = {"message": message, "type": "server_error", "param": None, "code": "upstream_error"}
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"
