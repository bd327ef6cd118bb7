"""What xAI does in its own way inside OpenAI's dialect."""

import json
from typing import Any

import pytest

from gateway.dialects.meter import Usage
from tests.corpus import endpoint_of
from tests.fuzz.requests import REQUESTS


def metered(path: str, usage: dict[str, Any]) -> Usage | None:
    endpoint, _, _ = endpoint_of(path)
    asked = next(endpoint.read(each.call) for each in REQUESTS if each.endpoint is endpoint)
    meter = endpoint.meter(asked, b"application/json")
    meter.feed(json.dumps({"usage": usage}).encode())
    meter.finish()
    return meter.usage()


@pytest.mark.wire("4.1")
@pytest.mark.parametrize(
    ("total", "output"),
    [
        (80 + 12 + 50, 62),  # the total says that reasoning is beside the completion
        (80 + 12, 12),  # inside it, as OpenAI counts
        (0, 12),
    ],
)
def test_reasoning_is_output_wherever_it_is_counted(total: int, output: int) -> None:
    reasoning = {"reasoning_tokens": 50 if total > 100 else 5}
    usage = {
        "prompt_tokens": 80,
        "completion_tokens": 12,
        "total_tokens": total,
        "completion_tokens_details": reasoning,
    }
    found = metered("/xai/v1/chat/completions", usage) or {}
    assert (found["output"], found["input_uncached"]) == (output, 80)


@pytest.mark.wire("4.2", "4.3")
@pytest.mark.parametrize(
    ("path", "tokens"),
    [
        ("/xai/v1/chat/completions", {"prompt_tokens": 5, "completion_tokens": 2}),
        ("/xai/v1/responses", {"input_tokens": 5, "output_tokens": 2}),
    ],
)
def test_the_exact_cost_is_kept_and_searches_are_counted(path: str, tokens: dict[str, int]) -> None:
    usage = {**tokens, "cost_in_usd_ticks": 41 * 10**9, "server_side_tool_usage_details": {"web_search_calls": 3}}
    wanted = {"input_uncached": 5, "output": 2, "web_searches": 3, "cost_usd_ticks": 41 * 10**9}
    assert metered(path, usage) == wanted
