"""Whatever Gemini reports, the buckets add up to its total: nothing is billed twice, and nothing is lost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.meter import Meter
from ledger.price_tables import INPUT_BUCKETS
from tests.unit.test_anthropic_fixtures import fed
from tests.unit.test_gemini_fixtures import PATHS, meter_for

COUNTS = st.integers(0, 10**7)
WAYS = ("generateContent", "streamGenerateContent?alt=sse", "streamGenerateContent")


def framed(way: str, chunks: list[dict[str, Any]]) -> tuple[str, bytes]:
    """Chunks as one of the three ways sends them: (content type, bytes)."""
    if way.endswith("sse"):
        return "text/event-stream", b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    if way == "generateContent":
        return "application/json", json.dumps(chunks[-1]).encode()
    return "application/json", json.dumps(chunks, indent=2).encode()


def metered(way: str, *chunks: dict[str, Any], pieces: int = 1) -> Meter:
    content_type, body = framed(way, list(chunks))
    meter = meter_for({"path": f"/v1/models/m:{way}"}, content_type)
    size = max(len(body) // pieces, 1)
    assert fed(meter, [body[at : at + size] for at in range(0, len(body), size)]) == body
    return meter


def usage_of(meter: Meter) -> dict[str, Any]:
    usage = meter.usage() or {}
    assert all(usage.values()), "zero means absent"
    return usage


@st.composite
def reports(draw: st.DrawFn) -> dict[str, Any]:
    """`usageMetadata` as it is documented: totals with details that are parts of them, some of them left out."""
    kinds = ("TEXT", "IMAGE", "AUDIO", "VIDEO", "DOCUMENT")
    prompt = {kind: draw(COUNTS) for kind in kinds}
    cached = {kind: draw(st.integers(0, prompt[kind])) for kind in kinds}
    tools = {kind: draw(st.just(0) | COUNTS) for kind in kinds}
    candidates = {kind: draw(st.just(0) | COUNTS) for kind in kinds}
    thoughts = draw(st.just(0) | COUNTS)
    lists = {"prompt": prompt, "cache": cached, "toolUsePrompt": tools, "candidates": candidates}
    report: dict[str, Any] = {
        "promptTokenCount": sum(prompt.values()),
        "cachedContentTokenCount": sum(cached.values()),
        "toolUsePromptTokenCount": sum(tools.values()),
        "candidatesTokenCount": sum(candidates.values()),
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": sum(map(sum, (prompt.values(), tools.values(), candidates.values()))) + thoughts,
    }
    for name, counts in lists.items():
        if draw(st.booleans()):
            details = [{"modality": kind, "tokenCount": tokens} for kind, tokens in counts.items() if tokens]
            report[f"{name}TokensDetails"] = details
    return {name: value for name, value in report.items() if value}


@pytest.mark.wire("3b.1", "3b.3")
@given(reports(), st.sampled_from(WAYS), st.integers(1, 9))
def test_the_buckets_add_up(report: dict[str, Any], way: str, pieces: int) -> None:
    usage = usage_of(metered(way, {"usageMetadata": report}, pieces=pieces))
    inputs = sum(usage.get(name, 0) for name in INPUT_BUCKETS)
    assert inputs + usage.get("output", 0) == report.get("totalTokenCount", 0)
    assert usage.get("cache_read", 0) == report.get("cachedContentTokenCount", 0)
    assert usage.get("output_reasoning", 0) == report.get("thoughtsTokenCount", 0)
    assert usage.get("input_tool", 0) == report.get("toolUsePromptTokenCount", 0)
    seen_or_heard = usage.get("input_audio", 0) + usage.get("input_image", 0)
    assert seen_or_heard <= usage.get("input_uncached", 0)
    made = usage.get("output_audio", 0) + usage.get("output_image", 0)
    assert made <= report.get("candidatesTokenCount", 0)


@pytest.mark.wire("3b.3")
@given(reports())
def test_modalities_are_those_of_the_uncached_part(report: dict[str, Any]) -> None:
    def tokens(name: str, *kinds: str) -> int:
        return sum(each["tokenCount"] for each in report.get(name, ()) if each["modality"] in kinds)

    usage = usage_of(metered("generateContent", {"usageMetadata": report}))
    for bucket, kinds in (("audio", ("AUDIO",)), ("image", ("IMAGE", "VIDEO"))):
        read, cached = tokens("promptTokensDetails", *kinds), tokens("cacheTokensDetails", *kinds)
        if "cacheTokensDetails" in report or "cachedContentTokenCount" not in report:
            wanted = max(read + tokens("toolUsePromptTokensDetails", *kinds) - cached, 0)
            assert usage.get(f"input_{bucket}", 0) == wanted
        assert usage.get(f"output_{bucket}", 0) == tokens("candidatesTokensDetails", *kinds)


@pytest.mark.wire("3b.2", "3b.5")
@given(
    st.lists(st.none() | st.just({}) | reports(), min_size=1, max_size=5), st.sampled_from(WAYS[1:]), st.integers(1, 50)
)
def test_the_last_report_there_is_counts(found: list[dict[str, Any] | None], way: str, pieces: int) -> None:
    chunks: list[dict[str, Any]] = [{"candidates": []} if each is None else {"usageMetadata": each} for each in found]
    present = [report for report in found if report]
    meter = metered(way, *chunks, pieces=pieces)
    assert not meter.done
    if present:
        assert usage_of(meter) == usage_of(metered("generateContent", {"usageMetadata": present[-1]}))
    else:
        assert meter.usage() is None


@pytest.mark.wire("3b.2", "5.5")
@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=5))
def test_usage_on_the_way_is_never_more_than_at_the_end(steps: list[tuple[int, int]]) -> None:
    """A stream is stopped at its hold on what was reported so far (design.md section 4): that must be a lower bound."""
    meter, seen, candidates, thoughts = meter_for({"path": "/v1/models/m:" + WAYS[1]}, "text/event-stream"), [], 0, 0
    for more, thought in steps:
        candidates, thoughts = candidates + more, thoughts + thought
        report = {"promptTokenCount": 5, "candidatesTokenCount": candidates, "thoughtsTokenCount": thoughts}
        meter.feed(b"data: " + json.dumps({"usageMetadata": report}).encode() + b"\n\n")
        seen.append(int((meter.usage() or {}).get("output", 0)))
    assert seen == sorted(seen)
    assert seen[-1] == candidates + thoughts


@pytest.mark.wire("3b.1")
def test_the_fixtures_add_up_too() -> None:
    """The values by hand of every fixture whose answer says a total."""
    checked = 0
    for path in PATHS:
        expect = json.loads(path.read_text())
        body = (path.parent / expect["body"]).read_text()
        usage = expect["meter"] or {}
        inputs = sum(usage.get(name, 0) for name in INPUT_BUCKETS)
        totals = [int(part.split(",")[0].split("}")[0]) for part in body.split('"totalTokenCount":')[1:]]
        if totals and expect.get("done", True):
            assert inputs + usage.get("output", 0) == totals[-1], path.name
            checked += 1
    assert checked >= 25


@pytest.mark.wire("3b.4")
@pytest.mark.parametrize(
    ("model", "searches"),
    [
        ("gemini-1.5-pro-002", 1),
        ("gemini-2.0-flash", 1),
        ("models/gemini-2.5-pro", 1),
        ("gemini-3-pro-preview", 2),
        ("gemini-3.1-flash", 2),
        ("gemini-10-pro", 2),
        ("gemini-flash-latest", 2),
        (None, 2),
    ],
)
def test_what_a_search_is(model: str | None, searches: int) -> None:
    """By query, but for the models of which it is known that they are billed by prompt."""
    grounded = {"index": 0, "groundingMetadata": {"webSearchQueries": ["a", "b"]}}
    chunk = {"candidates": [grounded], "usageMetadata": {"promptTokenCount": 1}, "modelVersion": model}
    assert usage_of(metered("generateContent", chunk))["web_searches"] == searches


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["candidates", "usageMetadata", "promptFeedback", "groundingMetadata", "webSearchQueries", "promptTokensDetails",
     "promptTokenCount", "index", "finishReason", "error", "modelVersion"],
)  # fmt: skip
NESTED = st.dictionaries(NAMES, JSON | st.dictionaries(NAMES, JSON, max_size=3), max_size=4)


@pytest.mark.wire("5.12")
@given(st.dictionaries(NAMES, JSON | NESTED | st.lists(NESTED, max_size=3), max_size=5), st.sampled_from(WAYS))
def test_nothing_that_an_answer_says_breaks_the_meter(document: dict[str, Any], way: str) -> None:
    assert usage_of(metered(way, document)) is not None


@pytest.mark.wire("5.12")
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"7", b"\xff\xfe", b"{", b"[{", b'"', b"}", b'{"usageMetadata": 5}']
)
@pytest.mark.parametrize("way", WAYS)
def test_damaged_answers(body: bytes, way: str) -> None:
    sse = way.endswith("sse")
    data = b"data: " + body + b"\n\n" if sse else body
    meter = meter_for({"path": f"/v1/models/m:{way}"}, "text/event-stream" if sse else "application/json")
    assert fed(meter, [data]) == data
    assert meter.usage() is None
