"""OpenAI images: JSON or forms in, pictures out, as one document or as events (wire.md sections 1a, 1b and 1c).

None has a field for a cap, so the model's maximum output is held for each picture. Not in the quote: what `svg.model`
costs. Its tokens are added to the bill at the price of the model that was asked for, because a bill has one price.
"""

from collections import Counter
from typing import Any, ClassVar

from msgspec.structs import replace

from gateway.dialects import body as json_body
from gateway.dialects import fields, multipart
from gateway.dialects.meter import MOST_TICKS, Events, Meter, Tab, Usage, Whole, buckets, count, inner, text
from gateway.dialects.multipart import Form
from gateway.dialects.openai import options
from gateway.dialects.shape import Asked, Call, Outgoing

_PICTURES = ("image", "images", "mask", "markup")
# What a preview costs (100 tokens), as text that counts for as many: for streams that are cut before their usage.
_PREVIEW_BYTES = 400


class ImageGenerations:
    """POST /images/generations."""

    name = "images.generations"
    free = False
    _path = "/images/generations"

    def read(self, call: Call) -> Asked:
        parsed = json_body.parse_object(call.body)
        pictures = [parsed[name] for name in _PICTURES if parsed.get(name) is not None]
        return Asked(
            model=fields.model(parsed),
            streamed=fields.flag(parsed, "stream"),
            choices=fields.whole(parsed, "n") or 1,
            by_reference=bool(pictures),
            stored=options.stored_inside(pictures),
            capped=False,
            parsed=parsed,
        )

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        del cap  # there is no field for one
        if not isinstance(asked.parsed, Form):
            return Outgoing(self._path, fields.put_model(call.body, asked.model, model))
        same = asked.model == model
        return Outgoing(self._path, call.body if same else multipart.replace_field(asked.parsed, "model", model))

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        if content_type.startswith(b"text/event-stream"):
            return Meter(ImagesStreamTab(asked.choices), Events())
        return Meter(ImagesTab(), Whole())


class ImageVariations(ImageGenerations):
    """POST /images/variations: a form, with the picture before the model's name if the caller likes."""

    name = "images.variations"
    _path = "/images/variations"

    def read(self, call: Call) -> Asked:
        form = multipart.parse(call.body, call.content_type)
        return Asked(
            model=form.model(),
            streamed=form.flag("stream"),
            choices=form.whole("n") or 1,
            by_reference=True,  # the tokens of a picture have nothing to do with its bytes
            capped=False,
            parsed=form,
        )


class ImageEdits(ImageVariations):
    """POST /images/edits: a form, or JSON that refers to pictures."""

    name = "images.edits"
    _path = "/images/edits"

    def read(self, call: Call) -> Asked:
        if multipart.is_form(call.content_type):
            return super().read(call)
        return replace(ImageGenerations.read(self, call), by_reference=True)


class ImagesTab(Tab):
    """`usage` and `svg_usage` of one document; for models that report none, the number of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: Counter[str] = Counter()
        self._reported = False
        self._pictures: int | None = None

    def read(self, document: dict[str, Any]) -> bool:
        pictures = document.get("data")
        if isinstance(pictures, list):
            self._pictures = len(pictures)
        self._take(document)
        return False

    def _take(self, document: dict[str, Any]) -> None:
        self.model = text(document, "model") or self.model
        usage, author, sums = document.get("usage"), document.get("svg_usage"), self._sums
        if isinstance(usage, dict):
            self._add(usage)
            sums["input_image"] += count(inner(usage, "input_tokens_details"), "image_tokens")
            sums["output_image"] += _picture_tokens(usage)
            sums["ticks"] += count(usage, "cost_in_usd_ticks", most=MOST_TICKS)
        if isinstance(author, dict):
            self._add(author)
            sums["reasoning"] += count(author, "reasoning_tokens")

    def _add(self, usage: dict[str, Any]) -> None:
        self._reported = True
        self._sums["read"] += count(usage, "input_tokens")
        self._sums["cached"] += count(inner(usage, "input_tokens_details"), "cached_tokens")
        self._sums["written"] += count(usage, "output_tokens")

    def usage(self) -> Usage | None:
        if not self._reported and self._pictures is None:
            return None
        sums = self._sums
        return buckets(
            input_uncached=max(sums["read"] - sums["cached"], 0),
            cache_read=sums["cached"],
            output=sums["written"],
            output_reasoning=sums["reasoning"],
            input_image=sums["input_image"],
            output_image=sums["output_image"],
            cost_usd_ticks=sums["ticks"],
            # What is not counted in tokens is counted in pictures; never in both.
            requests=0 if sums["read"] or sums["written"] else self._pictures or 0,
        )


def _picture_tokens(usage: dict[str, Any]) -> int:
    """Of the output; all of it where the provider does not split it."""
    split = usage.get("output_tokens_details")
    return count(split, "image_tokens") if isinstance(split, dict) else count(usage, "output_tokens")


class ImagesStreamTab(ImagesTab):
    """A stream has one completed event for each picture, with the tokens "in the output image": they add up."""

    marks: ClassVar[tuple[bytes, ...]] = (b"image_generation.completed", b"image_edit.completed")

    def __init__(self, pictures: int) -> None:
        super().__init__()
        self._expected = pictures

    def read(self, document: dict[str, Any]) -> bool:
        if document.get("type") in ("image_generation.completed", "image_edit.completed"):
            self._pictures = (self._pictures or 0) + 1
            self._take(document)
            self.done = self._pictures >= self._expected
        return False

    def pass_over(self, piece: bytes) -> None:
        if b".partial_image" in piece:
            self.content_frames += 1
            self.content_bytes += _PREVIEW_BYTES
