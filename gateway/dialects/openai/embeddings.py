"""OpenAI embeddings: vectors out, so only the input is counted (wire.md sections 1a and 1b)."""

from typing import Any

from gateway.dialects import body as json_body
from gateway.dialects import fields
from gateway.dialects.meter import MOST_TICKS, Meter, Tab, Usage, Whole, buckets, count, inner, text
from gateway.dialects.openai import options
from gateway.dialects.shape import Asked, Call, Outgoing


class Embeddings:
    """POST /embeddings."""

    name = "embeddings"
    free = False

    def read(self, call: Call) -> Asked:
        parsed, plain = json_body.read_object(call.body)
        return Asked(
            model=fields.model(parsed),
            writes=False,
            by_reference=options.opaque(plain),
            variants=options.variants(parsed),
            capped=False,
            parsed=parsed,
        )

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        del cap  # nothing is written
        return Outgoing("/embeddings", fields.put_model(call.body, asked.model, model))

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        del asked, content_type
        return Meter(EmbeddingsTab(), Whole())


class EmbeddingsTab(Tab):
    """`usage.prompt_tokens`; its total is the same number."""

    always_costs = True

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Any] | None = None

    def read(self, document: dict[str, Any]) -> bool:
        found = document.get("usage")
        self._usage = found if isinstance(found, dict) else None
        self.model = text(document, "model")
        return False

    def usage(self) -> Usage | None:
        if self._usage is None:
            return None
        details = inner(self._usage, "prompt_tokens_details")
        return buckets(
            input_uncached=count(self._usage, "prompt_tokens"),
            input_image=count(details, "image_tokens"),
            input_audio=count(details, "audio_tokens"),
            cost_usd_ticks=count(self._usage, "cost_in_usd_ticks", most=MOST_TICKS),
        )
