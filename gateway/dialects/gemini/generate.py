"""Gemini's content, embeddings and counting: what a request asks for, and how the provider is asked (wire.md 3a and 3c).

The model is in the path. A body may name it again, for each of a batch it must: it has to be the same one then.
"""

from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import quote

import orjson
from msgspec.structs import replace

from gateway.dialects import body as json_body
from gateway.dialects import fields
from gateway.dialects.array import Array
from gateway.dialects.body import BadBody
from gateway.dialects.gemini import options
from gateway.dialects.gemini.splice import Path, object_in, replaced, spans
from gateway.dialects.gemini.usage import ContentTab, EmbeddingTab
from gateway.dialects.meter import CountTab, Events, Meter, Whole
from gateway.dialects.shape import Asked, Call, Outgoing

_COLLECTION = "models/"


class GenerateContent:
    """POST /{version}/models/{model}:generateContent."""

    name = "generate_content"
    free = False
    _verb = "generateContent"
    _streamed = False
    _models: ClassVar[tuple[Path, ...]] = (("model",),)
    """Where a body may name the model."""

    def read(self, call: Call) -> Asked:
        parsed, plain = json_body.read_object(call.body)
        model = _model(call, parsed, self._models)
        config = options.config(parsed)
        return Asked(
            model=model,
            streamed=self._streamed,
            cap=fields.whole(config, options.spelt(config, "maxOutputTokens")),
            choices=fields.whole(config, options.spelt(config, "candidateCount")) or 1,
            by_reference=options.by_reference(plain, parsed),
            searches=options.searches(parsed, model),
            variants=options.variants(parsed),
            stored=options.stored(plain, parsed),
            parsed=parsed,
        )

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        body = call.body
        if model != asked.model:
            body = _put_model(body, asked.parsed, self._models, _resource(model))
        if cap is not None:
            body = _put_cap(body, asked.parsed, cap)
        path = f"/{call.target[0]}/{quote(_resource(model), safe='/@')}:{self._verb}"
        return Outgoing(path + self._query(call), body)

    def _query(self, call: Call) -> str:
        del call
        return ""

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        tab = ContentTab(asked.model, asked.variants)
        return Meter(tab, Events() if content_type.startswith(b"text/event-stream") else Whole())


class StreamGenerateContent(GenerateContent):
    """POST /{version}/models/{model}:streamGenerateContent: events if the caller asks for them, else a JSON array."""

    name = "stream_generate_content"
    _verb = "streamGenerateContent"
    _streamed = True

    def _query(self, call: Call) -> str:
        return "?alt=sse" if b"alt=sse" in call.query.split(b"&") else ""

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        tab = ContentTab(asked.model, asked.variants)
        return Meter(tab, Events() if content_type.startswith(b"text/event-stream") else Array())


class EmbedContent(GenerateContent):
    """POST /{version}/models/{model}:embedContent: nothing is written, so there is nothing to cap."""

    name = "embed_content"
    _verb = "embedContent"

    def read(self, call: Call) -> Asked:
        parsed, plain = json_body.read_object(call.body)
        return Asked(
            model=_model(call, parsed, self._models),
            writes=False,
            by_reference=options.by_reference(plain, parsed),
            variants=options.variants(parsed),
            stored=options.stored(plain, parsed),
            capped=False,
            parsed=parsed,
        )

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        del content_type
        return Meter(EmbeddingTab(asked.model, asked.variants), Whole())


class BatchEmbedContents(EmbedContent):
    """POST /{version}/models/{model}:batchEmbedContents."""

    name = "batch_embed_contents"
    _verb = "batchEmbedContents"
    _models: ClassVar[tuple[Path, ...]] = (("model",), ("requests", None, "model"))


class CountTokens(EmbedContent):
    """POST /{version}/models/{model}:countTokens, which costs nothing."""

    name = "count_tokens"
    free = True
    _verb = "countTokens"
    _models: ClassVar[tuple[Path, ...]] = (
        ("model",),
        ("generateContentRequest", "model"),
        ("generate_content_request", "model"),
    )

    def read(self, call: Call) -> Asked:
        asked = super().read(call)
        request = fields.record(asked.parsed, options.spelt(asked.parsed, "generateContentRequest")) or {}
        return replace(asked, stored=asked.stored or options.stored(call.body, request))

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        del asked, content_type
        return Meter(CountTab(), Whole())


def _model(call: Call, parsed: dict[str, Any], places: tuple[Path, ...]) -> str:
    """The model that the path names; a body that names another one could be read in two ways."""
    model = call.target[1].removeprefix(_COLLECTION)
    for path in places:
        for named in _values(parsed, path):
            if not isinstance(named, str) or named.removeprefix(_COLLECTION) != model:
                raise BadBody("The field 'model' in the body must be the model that the path names.")
    return model


def _values(value: Any, path: Path) -> Iterator[Any]:
    """What there is at a path; null is nothing."""
    if not path:
        if value is not None:
            yield value
    elif path[0] is None:
        for each in value if isinstance(value, list) else ():
            yield from _values(each, path[1:])
    elif isinstance(value, dict):
        yield from _values(value.get(path[0]), path[1:])


def _resource(model: str) -> str:
    """A model with its collection, as paths and bodies name it."""
    return model if "/" in model else _COLLECTION + model


def _put_model(body: bytes, parsed: dict[str, Any], places: tuple[Path, ...], resource: str) -> bytes:
    """The provider's own name of the model wherever the body names it; most bodies do not, and are not searched."""
    for path in places:
        if any(True for _ in _values(parsed, path)):
            found = [(start, end) for start, end in spans(body, path) if body[start:end] != b"null"]
            body = replaced(body, found, orjson.dumps(resource))
    return body


def _put_cap(body: bytes, parsed: dict[str, Any], cap: int) -> bytes:
    """The same bytes with a cap inside the configuration, in the caller's own spelling of both."""
    name = options.spelt(parsed, "generationConfig")
    config = parsed.get(name)
    if config is None:
        return fields.put(body, parsed, name, {"maxOutputTokens": cap})
    start, end = object_in(body, name)
    inside = fields.put(body[start:end], config, options.spelt(config, "maxOutputTokens"), cap)
    return body[:start] + inside + body[end:]
