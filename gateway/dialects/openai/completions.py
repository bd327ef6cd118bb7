"""OpenAI completions, the older kind: text in, text out, usage as in chat completions (wire.md sections 1b and 1c)."""

import re
from typing import Any, ClassVar

from gateway.dialects import body as json_body
from gateway.dialects import fields
from gateway.dialects.meter import Events, Meter, Whole
from gateway.dialects.openai import options
from gateway.dialects.openai.chat import ChatTab
from gateway.dialects.shape import Asked, Call, Outgoing

# What the API does without `max_tokens`. To splice another number in would change the answer.
DEFAULT_CAP = 16


class Completions:
    """POST /completions."""

    name = "completions"
    free = False

    def read(self, call: Call) -> Asked:
        parsed = json_body.parse_object(call.body)
        usage_switch = fields.record(parsed, "stream_options")
        streamed = fields.flag(parsed, "stream")
        # The best of several is one answer, but all of them are written and billed.
        answers = max(fields.whole(parsed, "n") or 1, fields.whole(parsed, "best_of") or 1)
        return Asked(
            model=fields.model(parsed),
            streamed=streamed,
            cap=fields.whole(parsed, "max_tokens") or DEFAULT_CAP,
            choices=answers * _prompts(parsed.get("prompt")),
            variants=options.variants(parsed),
            hide_usage=streamed and not (usage_switch and usage_switch.get("include_usage")),
            capped=False,
            parsed=parsed,
        )

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        del cap  # there always is one
        body = fields.put_model(call.body, asked.model, model)
        if asked.hide_usage:
            body = options.with_usage(body, asked.parsed)
        return Outgoing("/completions", body)

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        if content_type.startswith(b"text/event-stream"):
            return Meter(CompletionsTab(), Events(), hide=asked.hide_usage)
        return Meter(CompletionsTab(), Whole())


def _prompts(prompt: Any) -> int:
    """How many prompts there are: a list is several if it is of texts or of lists of tokens, one if it is of tokens."""
    several = [each for each in prompt if isinstance(each, str | list)] if isinstance(prompt, list) else ()
    return max(len(several), 1)


class CompletionsTab(ChatTab):
    """As in chat completions; only the text is somewhere else."""

    written: ClassVar[re.Pattern[bytes]] = re.compile(rb'"text"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL)
