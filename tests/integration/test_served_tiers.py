"""Who served is what counts: Gemini says it in a header, and says it of answers that name another tier, or none."""

from typing import Any

import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.stack import Stack, http

TIERS = {
    "priority": {"input_per_million_usd": "5", "output_per_million_usd": "20"},
    "flex": {"input_per_million_usd": "1", "output_per_million_usd": "4"},
}
PRICE = {"input_per_million_usd": "2", "output_per_million_usd": "8", "service_tiers": TIERS}
ANSWER = (
    b'{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},"finishReason":"STOP","index":0}],'
    b'"usageMetadata":{"promptTokenCount":100,"candidatesTokenCount":10%s},"modelVersion":"gemini-up"}'
)


@pytest.mark.wire("3b.6", "6.12")
@pytest.mark.parametrize(
    ("asked", "said", "header", "nanos"),
    [
        ("PRIORITY", b"", "standard", 100 * 2_000 + 10 * 8_000),
        ("FLEX", b"", None, 100 * 1_000 + 10 * 4_000),
        ("STANDARD", b"", "priority", 100 * 5_000 + 10 * 20_000),
        ("PRIORITY", b',"serviceTier":"PRIORITY"', "flex", 100 * 1_000 + 10 * 4_000),
    ],
)
async def test_the_tier_in_the_header(stack: Stack, asked: str, said: bytes, header: str | None, nanos: int) -> None:
    headers = {"x-gemini-service-tier": header} if header else {}
    behaviour = Behaviour(body=ANSWER % said, content_type="application/json", headers=headers)
    async with ScriptedProvider(behaviour) as provider:
        upstream = {"provider": "gemini", "base_url": provider.url}
        model, customer = await stack.model(provider.url, upstream=upstream, price=PRICE), await stack.customer()
        body: dict[str, Any] = {"contents": [{"parts": [{"text": "Hi"}]}], "serviceTier": asked}
        body["generationConfig"] = {"maxOutputTokens": 50}
        async with http() as client:
            path = f"{stack.gateway}/gemini/v1beta/models/{model}:generateContent"
            answer = await client.post(path, json=body, headers={"x-goog-api-key": customer.key})
        assert (answer.status_code, answer.headers.get("x-gemini-service-tier")) == (200, header)
        [event] = await stack.events(customer.id, 1)
        assert event["charge_nanos"] == nanos
        assert event["usage"].get("service_tier", "standard") == (header or asked).lower()
