"""OpenAI moderations: no tokens are reported, so a request is a request (wire.md section 1a)."""

from typing import Any

from gateway.dialects import body as json_body
from gateway.dialects import fields
from gateway.dialects.meter import Meter, Tab, Usage, Whole, text
from gateway.dialects.openai import options
from gateway.dialects.shape import Asked, Call, Outgoing


class Moderations:
    """POST /moderations. The API picks a model where none is named; Weir cannot price what it does not know."""

    name = "moderations"
    free = False

    def read(self, call: Call) -> Asked:
        parsed, plain = json_body.read_object(call.body)
        return Asked(
            model=fields.model(parsed),
            writes=False,
            by_reference=options.opaque(plain),
            capped=False,
            parsed=parsed,
        )

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        del cap  # nothing is written
        return Outgoing("/moderations", fields.put_model(call.body, asked.model, model))

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        del asked, content_type
        return Meter(ModerationsTab(), Whole())


class ModerationsTab(Tab):
    """One request, once there is an answer."""

    def read(self, document: dict[str, Any]) -> bool:
        self.model = text(document, "model")
        self.done = True
        return False

    def usage(self) -> Usage | None:
        return {"requests": 1} if self.done else None
