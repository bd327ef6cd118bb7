"""Answers without usage, and bodies that are forms: what they are billed through the whole product."""

from typing import Any

import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.stack import Stack, http

PRICE = {"input_per_million_usd": "1", "output_per_million_usd": "10", "per_second_usd": "0.0001"}


def form(model: str, recording: bytes) -> tuple[bytes, str]:
    """As Node's SDK sends it: the file before the model (wire.md 1c)."""
    head = b'--b0\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg\r\n\r\n'
    rest = b'\r\n--b0\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + model.encode() + b"\r\n--b0--\r\n"
    return head + recording + rest, "multipart/form-data; boundary=b0"


async def post(stack: Stack, key: str, path: str, content: bytes, kind: str) -> Any:
    headers = {"authorization": f"Bearer {key}", "content-type": kind}
    async with http() as client:
        return await client.post(stack.base_url + path, content=content, headers=headers)


@pytest.mark.wire("1b.8", "1c.3")
async def test_a_form_goes_on_as_a_form_and_is_billed_by_the_second(stack: Stack) -> None:
    answer = b'{"text":"hi","usage":{"type":"duration","seconds":3.2}}'
    async with ScriptedProvider(
        Behaviour(body=answer, content_type="application/json"), record_bodies=True
    ) as provider:
        model, customer = await stack.model(provider.url, target="whisper-up", price=PRICE), await stack.customer()
        content, kind = form(model, b"\x00\xff" * 4_000)
        got = await post(stack, customer.key, "/audio/transcriptions", content, kind)
        assert (got.status_code, got.content) == (200, answer)
        [seen] = provider.seen
        assert dict(seen.headers)["content-type"] == kind
        assert seen.body == content.replace(model.encode(), b"whisper-up")
        [event] = await stack.events(customer.id, 1)
        assert (event["usage"], event["estimated"], event["charge_nanos"]) == ({"audio_seconds": 4}, False, 4 * 100_000)
        assert event["quote_nanos"] >= event["charge_nanos"]


@pytest.mark.wire("1b.8", "8.7")
async def test_a_transcript_without_usage_is_estimated_by_its_length(stack: Stack) -> None:
    async with ScriptedProvider(Behaviour(body=b"hello there", content_type="text/plain")) as provider:
        model, customer = await stack.model(provider.url, price=PRICE), await stack.customer()
        content, kind = form(model, b"\x00\xff" * 8_000)  # 16,000 bytes at 8,000 a second
        assert (await post(stack, customer.key, "/audio/transcriptions", content, kind)).status_code == 200
        [event] = await stack.events(customer.id, 1)
        assert (event["estimated"], event["outcome"], event["usage"]["audio_seconds"]) == (True, "complete", 2)
        assert 0 < event["charge_nanos"] <= event["quote_nanos"]


@pytest.mark.wire("1b.9", "8.7")
async def test_speech_is_estimated_and_never_above_its_quote(stack: Stack) -> None:
    sound = bytes(range(256)) * 400
    async with ScriptedProvider(Behaviour(body=sound, content_type="audio/mpeg")) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        content = b'{"model":"%s","input":"Good morning","voice":"alloy"}' % model.encode()
        got = await post(stack, customer.key, "/audio/speech", content, "application/json")
        assert (got.status_code, got.content) == (200, sound)
        [event] = await stack.events(customer.id, 1)
        assert (event["estimated"], event["usage"]["input_uncached"]) == (True, len("Good morning"))
        assert 0 < event["charge_nanos"] <= event["quote_nanos"]


@pytest.mark.wire("6.13")
@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-16"]
)
async def test_what_was_read_as_json_is_sent_as_json(stack: Stack, kind: str) -> None:
    """Under its caller's type, a provider could read another model in the same bytes than the one that was priced."""
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        content = b'{"model":"%s","messages":[{"role":"user","content":"Hi"}]}' % model.encode()
        assert (await post(stack, customer.key, "/chat/completions", content, kind)).status_code == 200
        [seen] = provider.seen
        assert [value for name, value in seen.headers if name == "content-type"] == ["application/json"]


@pytest.mark.wire("6h.1", "1a.3")
@pytest.mark.parametrize(
    ("path", "more", "field"),
    [
        ("/responses", '"input":"x","previous_response_id":"resp_1"', "previous_response_id"),
        ("/responses", '"input":"x","conversation":"conv_1"', "conversation"),
        ("/responses", '"input":"x","background":true', "background"),
        ("/responses", '"prompt":{"id":"pmpt_1"}', "prompt"),
        (
            "/chat/completions",
            '"messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}]',
            "file_id",
        ),
    ],
)
async def test_what_is_stored_elsewhere_is_refused_with_its_reason(
    stack: Stack, path: str, more: str, field: str
) -> None:
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        content = f'{{"model":"{model}",{more}}}'.encode()
        got = await post(stack, customer.key, path, content, "application/json")
        assert (got.status_code, got.json()["error"]["param"]) == (400, field)
        assert "one credential serves every caller" in got.json()["error"]["message"]
        assert provider.stats.requests == 0


@pytest.mark.wire("7.1")
async def test_a_tier_without_a_price_is_refused_and_one_that_served_is_billed_dear(stack: Stack) -> None:
    tiers = {"priority": {"input_per_million_usd": "5", "output_per_million_usd": "20"}}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    answer = '{{"object":"chat.completion","model":"m","choices":[],"service_tier":"{}","usage":{}}}'
    async with ScriptedProvider() as provider:
        price = {"input_per_million_usd": "2.5", "output_per_million_usd": "10", "service_tiers": tiers}
        model, customer = await stack.model(provider.url, price=price), await stack.customer()

        async def ask(tier: str) -> Any:
            content = f'{{"model":"{model}","messages":[],"max_tokens":50,"service_tier":"{tier}"}}'.encode()
            return await post(stack, customer.key, "/chat/completions", content, "application/json")

        refused = await ask("flex")
        assert (refused.status_code, refused.headers["x-weir-refusal"]) == (400, "invalid_request")
        charges: list[int] = []
        for served in ("default", "priority", "ultrafast"):
            body = answer.format(served, str(usage).replace("'", '"')).encode()
            provider.queue(Behaviour(body=body, content_type="application/json"))
            assert (await ask("auto")).status_code == 200
            charges.append((await stack.events(customer.id, len(charges) + 1))[0]["charge_nanos"])
        assert charges == [100 * 2_500 + 10 * 10_000, 100 * 5_000 + 10 * 20_000, 100 * 5_000 + 10 * 20_000]
