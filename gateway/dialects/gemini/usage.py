"""What an answer of Gemini used: `usageMetadata` and searches (wire.md section 3b)."""

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from gateway.dialects.gemini.options import billed_once
from gateway.dialects.meter import Tab, Usage, buckets, count, inner, text

# More than any request can ask for; what a stream says without end is not remembered without end.
_CANDIDATES, _QUERIES = 1_000, 1_000
_UNFINISHED = (None, "", "FINISH_REASON_UNSPECIFIED")
# Providers bill video as they bill images where they do not bill it as text; there is no bucket of its own for it.
_KINDS = {"AUDIO": "audio", "IMAGE": "image", "VIDEO": "image"}


class ContentTab(Tab):
    """Usage of content and of embeddings: totals so far in each chunk, or in the last only; the last one there counts."""

    marks: ClassVar[tuple[bytes, ...]] = (
        b'"usageMetadata"',
        b'"finishReason"',
        b'"blockReason"',
        b'"groundingMetadata"',
        b'"error"',
    )
    written: ClassVar[re.Pattern[bytes]] = re.compile(rb'"(?:text|code)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL)

    def __init__(self, model: str, variants: tuple[str, ...] | None) -> None:
        super().__init__()
        self._asked_model = model
        self._tier = variants[0] if variants else None
        self._usage: dict[str, Any] = {}
        self._queries: set[int] = set()
        self._open: set[int] = set()
        self._finished: set[int] = set()
        self._blocked = False
        self._failed = False

    def read(self, document: dict[str, Any]) -> bool:
        self.model = text(document, "modelVersion") or self.model
        # A later chunk without it does not erase it, and one with it is not added to it.
        self._usage = inner(document, "usageMetadata") or self._usage
        for candidate in _objects(document.get("candidates")):
            self._follow(candidate)
        self._blocked = self._blocked or bool(inner(document, "promptFeedback").get("blockReason"))
        self._failed = self._failed or document.get("error") is not None
        ended = bool(self._finished) and not self._open
        self.done = (ended or self._blocked) and not self._failed
        return False

    def _follow(self, candidate: dict[str, Any]) -> None:
        """Whether a candidate has come to its end; one chunk may still follow the one that said so."""
        index = count(candidate, "index", most=_CANDIDATES)
        if candidate.get("finishReason") not in _UNFINISHED:
            self._finished.add(index)
            self._open.discard(index)
        elif index not in self._finished:
            self._open.add(index)
        queries = inner(candidate, "groundingMetadata").get("webSearchQueries")
        if isinstance(queries, list) and len(self._queries) < _QUERIES:
            self._queries.update(hash(query) for query in queries[:_QUERIES] if isinstance(query, str) and query)

    def usage(self) -> Usage | None:
        usage = self._usage
        if not usage:
            return None
        cached, tools = count(usage, "cachedContentTokenCount"), count(usage, "toolUsePromptTokenCount")
        prompt, thoughts = count(usage, "promptTokenCount"), count(usage, "thoughtsTokenCount")
        uncached, candidates = max(prompt - cached, 0) + tools, count(usage, "candidatesTokenCount")
        inputs = _kinds(usage, "promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails")
        outputs, from_cache = _kinds(usage, "candidatesTokensDetails"), _kinds(usage, "cacheTokensDetails")
        audio = min(max(inputs["audio"] - from_cache["audio"], 0), uncached)
        spoken = min(outputs["audio"], candidates)
        return buckets(
            input_uncached=uncached,
            cache_read=cached,
            output=candidates + thoughts,
            output_reasoning=thoughts,
            input_audio=audio,
            input_image=min(max(inputs["image"] - from_cache["image"], 0), uncached - audio),
            input_tool=tools,
            output_audio=spoken,
            output_image=min(outputs["image"], candidates - spoken),
            web_searches=self._searches(),
            service_tier=self._served_tier(),
        )

    def _searches(self) -> int:
        once = billed_once(self.model or self._asked_model)
        return min(len(self._queries), 1) if once else len(self._queries)

    def _served_tier(self) -> str | None:
        """The tier that the answer names, else the one that was asked for: it has another price."""
        named = (text(self._usage, "serviceTier") or "").lower()
        return self._tier if named in ("", "unspecified") else named


class EmbeddingTab(ContentTab):
    """Usage of embeddings, which newer versions report."""

    always_costs = True


def _kinds(usage: dict[str, Any], *names: str) -> dict[str, int]:
    """Tokens that are not text, by the kinds that can have a rate, over some lists of details."""
    totals = {"audio": 0, "image": 0}
    for name in names:
        for detail in _objects(usage.get(name)):
            kind = _KINDS.get((text(detail, "modality") or "").upper())
            if kind is not None:
                totals[kind] += count(detail, "tokenCount")
    return totals


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (each for each in value if isinstance(each, dict)) if isinstance(value, list) else iter(())
