"""The table of docs/billing.md in every dialect that streams: each way to end, what it is charged, and how it is told."""

import asyncio
import contextlib
import json
from typing import Any, NamedTuple

import httpx2
import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.integration.test_main_job import expected_nanos
from tests.stack import Customer, Stack, http

WORDS = " ".join(f"word{n}" for n in range(40))
TEXT = "Hello there, how are you?"  # five words, so five tokens for the scripted provider


class Way(NamedTuple):
    """How a dialect asks for a stream, with an output cap of 200 tokens."""

    provider: str
    path: str
    header: str
    body: dict[str, Any]
    end: bytes
    broken: bytes


WAYS = {
    "chat": Way(
        "openai", "/openai/v1/chat/completions", "authorization",
        {"messages": [{"role": "user", "content": TEXT}], "stream": True, "max_tokens": 200},
        b"[DONE]", b'data: {"error":{"message":"The upstream broke',
    ),
    "responses": Way(
        "openai", "/openai/v1/responses", "authorization",
        {"input": TEXT, "stream": True, "max_output_tokens": 200},
        b"response.completed", b'data: {"error":{"message":"The upstream broke',
    ),
    "messages": Way(
        "anthropic", "/anthropic/v1/messages", "x-api-key",
        {"messages": [{"role": "user", "content": TEXT}], "stream": True, "max_tokens": 200},
        b"message_stop", b'event: error\ndata: {"type":"error"',
    ),
    "gemini": Way(
        "gemini", "/gemini/v1beta/models/{}:streamGenerateContent?alt=sse", "x-goog-api-key",
        {"contents": [{"parts": [{"text": TEXT}]}], "generationConfig": {"maxOutputTokens": 200}},
        b'"finishReason"', b"",
    ),
    "gemini_array": Way(
        "gemini", "/gemini/v1/models/{}:streamGenerateContent", "x-goog-api-key",
        {"contents": [{"parts": [{"text": TEXT}]}], "generationConfig": {"maxOutputTokens": 200}},
        b"]", b"",
    ),
}  # fmt: skip


async def set_up(stack: Stack, provider: ScriptedProvider, way: Way, **more: Any) -> tuple[str, Customer]:
    base = provider.url + ("/v1" if way.provider == "openai" else "")
    upstream = {"provider": way.provider, "base_url": base, **more.pop("upstream", {})}
    return await stack.model(provider.url, upstream=upstream, **more), await stack.customer()


async def read(stack: Stack, customer: Customer, way: Way, model: str, *, words: int = 10_000) -> tuple[bytes, bool]:
    """A stream up to so many words, or to its end; and whether it ended cleanly."""
    key = f"Bearer {customer.key}" if way.header == "authorization" else customer.key
    body = way.body if way.provider == "gemini" else {**way.body, "model": model}
    headers = {way.header: key, "anthropic-version": "2023-06-01"} if way.provider == "anthropic" else {way.header: key}
    seen = b""
    url = stack.gateway + way.path.format(model)
    async with http() as client, client.stream("POST", url, json=body, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        with contextlib.suppress(httpx2.RemoteProtocolError):
            async for data in answer.aiter_raw():
                seen += data
                if seen.count(b"word") >= words:
                    break
            return seen, True
    return seen, False


async def only_event(stack: Stack, customer: Customer, *, bounded: bool = True) -> dict[str, Any]:
    """The event, and a balance that agrees. `bounded`: the provider kept to the cap, so the charge is in the quote."""
    [event] = await stack.events(customer.id, 1)
    balance = await stack.settled(customer.id)
    assert balance["spent_nanos"] == event["charge_nanos"]
    assert event["charge_nanos"] <= event["quote_nanos"] or not bounded
    assert balance["available_nanos"] == balance["credited_nanos"] - event["charge_nanos"]
    return event


every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@every_way
async def test_complete(stack: Stack, way: Way) -> None:
    async with ScriptedProvider(Behaviour(text=WORDS)) as provider:
        model, customer = await set_up(stack, provider, way)
        seen, clean = await read(stack, customer, way, model)
        assert clean
        assert way.end in seen
        event = await only_event(stack, customer)
        assert (event["outcome"], event["estimated"], event["streamed"]) == ("complete", False, True)
        assert event["charge_nanos"] == expected_nanos(5, 40)


@pytest.mark.wire("5.5")
@every_way
async def test_the_caller_left_and_the_upstream_is_drained(stack: Stack, way: Way) -> None:
    async with ScriptedProvider(Behaviour(text=WORDS, stall_after_chunks=20)) as provider:
        model, customer = await set_up(stack, provider, way)
        await read(stack, customer, way, model, words=10)
        await provider.wait_for(lambda p: p.stats.held == 1)
        provider.release()
        event = await only_event(stack, customer)
        assert (event["outcome"], event["estimated"], event["end"]) == ("client_left", False, "settled")
        assert event["charge_nanos"] == expected_nanos(5, 40)


@pytest.mark.wire("5.5")
@every_way
async def test_the_caller_left_and_the_upstream_is_cut(stack: Stack, way: Way) -> None:
    """Abort: what was seen, and never too little; also where a provider reports usage at the beginning."""
    async with ScriptedProvider(Behaviour(text=WORDS, stall_after_chunks=20)) as provider:
        model, customer = await set_up(stack, provider, way, upstream={"on_client_left": "abort"})
        await read(stack, customer, way, model, words=15)
        event = await only_event(stack, customer)
        assert event["outcome"] == "client_left"
        assert event["usage"]["output"] >= 15
        assert event["charge_nanos"] >= expected_nanos(5, 15)
        await provider.wait_for(lambda p: p.seen[0].outcome == "client_left")


@pytest.mark.wire("5.1", "1d.2", "2d.2", "3d.2")
@every_way
async def test_the_upstream_broke(stack: Stack, way: Way) -> None:
    """Told in the dialect where it has a way, and never a clean end (wire.md 0.4)."""
    async with ScriptedProvider(Behaviour(text=WORDS, cut_after_chunks=12)) as provider:
        model, customer = await set_up(stack, provider, way)
        seen, clean = await read(stack, customer, way, model)
        assert not clean
        assert way.broken in seen
        if way.provider == "gemini":
            rest = seen[seen.rindex(b"word11") :]
            assert b"event:" not in rest
            assert b"[DONE]" not in rest
        event = await only_event(stack, customer)
        assert (event["outcome"], event["end"]) == ("upstream_broke", "settled")
        assert event["charge_nanos"] >= expected_nanos(5, 12)


@pytest.mark.wire("5.1")
@every_way
async def test_a_clean_end_that_is_not_the_end(stack: Stack, way: Way) -> None:
    """The provider's connection ends as it should, but the answer in it does not."""
    async with ScriptedProvider(Behaviour(text=WORDS, framing="close", cut_after_chunks=12)) as provider:
        model, customer = await set_up(stack, provider, way)
        _, clean = await read(stack, customer, way, model)
        assert not clean
        event = await only_event(stack, customer)
        assert event["outcome"] == "upstream_broke"
        assert event["usage"]["output"] >= 12


@pytest.mark.wire("5.10")
@every_way
async def test_refused_before_the_first_byte(stack: Stack, way: Way) -> None:
    async with ScriptedProvider(Behaviour(status=503)) as provider:
        model, customer = await set_up(stack, provider, way)
        key = f"Bearer {customer.key}" if way.header == "authorization" else customer.key
        body = way.body if way.provider == "gemini" else {**way.body, "model": model}
        async with http() as client:
            answer = await client.post(stack.gateway + way.path.format(model), json=body, headers={way.header: key})
        assert answer.status_code == 503
        assert "x-weir-refusal" not in answer.headers
        event = await only_event(stack, customer)
        assert (event["outcome"], event["end"], event["charge_nanos"]) == ("refused_upstream", "voided", 0)


async def test_stopped_at_the_hold(stack: Stack) -> None:
    """A provider that writes on past the cap: the stream is cut when what was seen costs more than was held."""
    long = Behaviour(text=" ".join(f"word{n}" for n in range(20_000)), ignore_cap=True, pace_s=0.002)

    async def run(way: Way) -> None:
        async with ScriptedProvider(long) as provider:
            model, customer = await set_up(stack, provider, way)
            _, clean = await read(stack, customer, way, model)
            assert not clean
            event = await only_event(stack, customer, bounded=False)
            assert (event["outcome"], event["end"], event["shortfall_nanos"]) == ("stopped", "settled", 0)
            assert event["usage"]["output"] >= 200

    async with asyncio.TaskGroup() as all_at_once:
        for way in WAYS.values():
            all_at_once.create_task(run(way))


@pytest.mark.wire("2c.1", "1c.1", "3c.1", "8.3")
@every_way
async def test_no_cap_is_a_cap_that_weir_sets(stack: Stack, way: Way) -> None:
    """In the dialect's own field, announced, and the largest that takes a tenth of what is available."""
    fields = {"max_tokens", "max_output_tokens", "generationConfig"}
    uncapped = way._replace(body={name: value for name, value in way.body.items() if name not in fields})
    async with ScriptedProvider(Behaviour(text=WORDS), record_bodies=True) as provider:
        model, customer = await set_up(stack, provider, way, max_output_tokens=100_000)
        key = f"Bearer {customer.key}" if way.header == "authorization" else customer.key
        body = uncapped.body if way.provider == "gemini" else {**uncapped.body, "model": model}
        async with http() as client:
            answer = await client.post(stack.gateway + way.path.format(model), json=body, headers={way.header: key})
        assert (answer.status_code, answer.headers["x-weir-output-cap"]) == (200, "65536")
        sent = json.loads(provider.seen[0].body or b"")
        caps = [sent.get("max_completion_tokens"), sent.get("max_tokens"), sent.get("max_output_tokens"),
                sent.get("generationConfig", {}).get("maxOutputTokens")]  # fmt: skip
        assert [cap for cap in caps if cap is not None] == [65_536]


@pytest.mark.wire("8.3")
@every_way
async def test_a_cap_is_lowered_to_the_balance_only_if_the_account_wants_it(stack: Stack, way: Way) -> None:
    """In the caller's own field, announced; a cap that cannot be lowered far enough is the 402 that it always was."""
    fields = {"max_tokens": 100_000, "max_output_tokens": 100_000, "generationConfig": {"maxOutputTokens": 100_000}}
    large = way._replace(body={name: fields.get(name, value) for name, value in way.body.items()})
    async with ScriptedProvider(Behaviour(text=WORDS), record_bodies=True) as provider:
        model, _ = await set_up(stack, provider, way, max_output_tokens=100_000)
        customer = await stack.customer("0.10")  # 100,000 tokens of output cost a dollar
        key = f"Bearer {customer.key}" if way.header == "authorization" else customer.key
        body = large.body if way.provider == "gemini" else {**large.body, "model": model}

        async def ask() -> Any:
            async with http() as client:
                return await client.post(stack.gateway + way.path.format(model), json=body, headers={way.header: key})

        assert (await ask()).status_code == 402
        await stack.ask("PATCH", f"/accounts/{customer.id}", {"fit_to_balance": True})
        fitted = await ask()
        assert fitted.status_code == 200, fitted.text
        cap = int(fitted.headers["x-weir-output-cap"])
        assert 9_000 < cap < 10_000
        sent = json.loads(provider.seen[0].body or b"")
        caps = [sent.get("max_completion_tokens"), sent.get("max_tokens"), sent.get("max_output_tokens"),
                sent.get("generationConfig", {}).get("maxOutputTokens")]  # fmt: skip
        assert [each for each in caps if each is not None] == [cap]
        await stack.settled(customer.id)
        poor = await stack.customer("0.03")
        await stack.ask("PATCH", f"/accounts/{poor.id}", {"fit_to_balance": True})
        key = f"Bearer {poor.key}" if way.header == "authorization" else poor.key
        assert (await ask()).status_code == 402, "below the floor it is no favour"


async def test_the_books_balance(stack: Stack) -> None:
    assert stack.audit()["agrees"]
