"""However a request ends, it is charged what docs/billing.md says, once, and holds nothing afterwards."""

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.integration.test_main_job import expected_nanos
from tests.stack import Customer, Stack, eventually, http

WORDS = " ".join(f"word{n}" for n in range(40))
PROMPT = [{"role": "user", "content": "Hello there, how are you?"}]


async def stream_until(stack: Stack, customer: Customer, model: str, chunks: int) -> bytes:
    """Read a stream's first chunks with a raw client, then hang up."""
    body = {"model": model, "messages": PROMPT, "stream": True, "max_tokens": 1000}
    seen = b""
    async with (
        http() as client,
        client.stream(
            "POST",
            f"{stack.base_url}/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {customer.key}"},
        ) as answer,
    ):
        assert answer.status_code == 200
        async for data in answer.aiter_raw():
            seen += data
            if seen.count(b"\n\n") > chunks:
                break
    return seen


async def only_event(stack: Stack, customer: Customer) -> dict[str, Any]:
    [event] = await stack.events(customer.id, 1)
    balance = await stack.settled(customer.id)
    assert balance["spent_nanos"] == event["charge_nanos"]
    assert balance["available_nanos"] == balance["credited_nanos"] - event["charge_nanos"]
    return event


@pytest.mark.wire("5.5")
async def test_a_client_that_leaves_is_charged_exactly_what_the_provider_counted(stack: Stack) -> None:
    """Drain, the default: the upstream is read on to its usage frame."""
    async with ScriptedProvider(Behaviour(text=WORDS, chunks=40, stall_after_chunks=10)) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        await stream_until(stack, customer, model, 5)
        await provider.wait_for(lambda p: p.stats.held == 1)
        assert (await stack.balance(customer.id))["held_nanos"] > 0, "the hold stays while the upstream goes on"
        provider.release()
        event = await only_event(stack, customer)
        assert (event["outcome"], event["estimated"], event["end"]) == ("client_left", False, "settled")
        assert event["charge_nanos"] == expected_nanos(5, 40)
        assert provider.seen[0].outcome == "answered"


@pytest.mark.wire("5.5")
async def test_leaving_just_before_the_usage_frame_is_no_cheaper(stack: Stack) -> None:
    async with ScriptedProvider(Behaviour(text=WORDS, chunks=40, stall_after_chunks=99)) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        await stream_until(stack, customer, model, 40)
        await provider.wait_for(lambda p: p.stats.held == 1)
        provider.release()
        event = await only_event(stack, customer)
        assert event["charge_nanos"] >= expected_nanos(5, 40)


@pytest.mark.wire("5.5")
async def test_abort_charges_what_was_seen_and_never_too_little(stack: Stack) -> None:
    async with ScriptedProvider(Behaviour(text=WORDS, chunks=40, stall_after_chunks=20)) as provider:
        model = await stack.model(provider.url, upstream={"on_client_left": "abort"})
        customer = await stack.customer()
        await stream_until(stack, customer, model, 15)
        event = await only_event(stack, customer)
        assert (event["outcome"], event["estimated"]) == ("client_left", True)
        assert event["usage"]["output"] >= 20
        assert event["charge_nanos"] >= expected_nanos(5, 20)
        await provider.wait_for(lambda p: p.seen[0].outcome == "client_left")


@pytest.mark.wire("1d.2", "5.1")
@pytest.mark.parametrize("reset", [False, True])
async def test_an_upstream_that_cuts_is_never_ended_cleanly(stack: Stack, reset: bool) -> None:
    async with ScriptedProvider(Behaviour(text=WORDS, chunks=40, cut_after_chunks=12, reset=reset)) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        async with openai.AsyncOpenAI(base_url=stack.base_url, api_key=customer.key, max_retries=0) as client:
            with pytest.raises((openai.APIError, httpx2.RemoteProtocolError)):
                async for _ in await client.chat.completions.create(model=model, messages=PROMPT, stream=True):  # type: ignore[arg-type, union-attr]
                    pass
        event = await only_event(stack, customer)
        assert (event["outcome"], event["estimated"], event["end"]) == ("upstream_broke", True, "settled")
        assert event["charge_nanos"] > 0


@pytest.mark.wire("5.1")
async def test_a_whole_answer_that_is_cut_is_not_ended_cleanly(stack: Stack) -> None:
    wire = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n" + b'{"id": "chatcmpl-1", '
    )
    async with ScriptedProvider(Behaviour(wire=wire, cut_after_chunks=0)) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        with pytest.raises(httpx2.RemoteProtocolError):
            async with http() as client:
                await client.post(
                    f"{stack.base_url}/chat/completions",
                    json={"model": model, "messages": PROMPT},
                    headers={"authorization": f"Bearer {customer.key}"},
                )
        event = await only_event(stack, customer)
        assert event["outcome"] == "upstream_broke"


@pytest.mark.wire("5.1")
async def test_a_stream_that_ends_without_its_end_is_not_passed_off_as_whole(stack: Stack) -> None:
    """No SDK notices a stream that lacks [DONE] (wire.md 0.4), so the connection must say it."""
    frame = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    async with ScriptedProvider(Behaviour(body=frame, content_type="text/event-stream")) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        with pytest.raises(httpx2.RemoteProtocolError):
            await stream_until(stack, customer, model, 99)
        event = await only_event(stack, customer)
        assert (event["outcome"], event["estimated"]) == ("upstream_broke", True)


async def test_nothing_answered_costs_nothing(stack: Stack) -> None:
    async with ScriptedProvider(Behaviour(cut_before_answer=True)) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        async with http() as client:
            answer = await client.post(
                f"{stack.base_url}/chat/completions",
                json={"model": model, "messages": PROMPT},
                headers={"authorization": f"Bearer {customer.key}"},
            )
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
        event = await only_event(stack, customer)
        assert (event["end"], event["charge_nanos"]) == ("voided", 0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_without_usage_is_counted_from_what_was_seen(stack: Stack, streamed: bool) -> None:
    async with ScriptedProvider(Behaviour(text=WORDS, chunks=40, omit_usage=True)) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        async with http() as client:
            answer = await client.post(
                f"{stack.base_url}/chat/completions",
                json={"model": model, "messages": PROMPT, "stream": streamed},
                headers={"authorization": f"Bearer {customer.key}"},
            )
        assert answer.status_code == 200
        event = await only_event(stack, customer)
        assert (event["outcome"], event["estimated"]) == ("complete", True)
        assert event["usage"]["output"] >= 40


@pytest.mark.wire("5.9")
async def test_an_error_in_mid_stream_passes_as_it_is(stack: Stack) -> None:
    async with ScriptedProvider(Behaviour(text=WORDS, chunks=40, error_after_chunks=5)) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        async with openai.AsyncOpenAI(base_url=stack.base_url, api_key=customer.key, max_retries=0) as client:
            with pytest.raises(openai.APIError):
                async for _ in await client.chat.completions.create(model=model, messages=PROMPT, stream=True):  # type: ignore[arg-type, union-attr]
                    pass
        await only_event(stack, customer)


@pytest.mark.wire("8.5")
async def test_what_is_more_than_hold_and_balance_is_the_operators_loss(stack: Stack) -> None:
    """A provider that ignores the cap: the charge stops at what the caller has, and the rest is seen."""
    usage = {"prompt_tokens": 5, "completion_tokens": 1_000_000, "total_tokens": 1_000_005}
    async with ScriptedProvider(Behaviour(usage=usage)) as provider:
        model, customer = await stack.model(provider.url), await stack.customer("1")
        async with http() as client:
            await client.post(
                f"{stack.base_url}/chat/completions",
                json={"model": model, "messages": PROMPT, "max_tokens": 10},
                headers={"authorization": f"Bearer {customer.key}"},
            )
        event = await only_event(stack, customer)
        assert event["charge_nanos"] == 1_000_000_000
        assert event["shortfall_nanos"] == expected_nanos(5, 1_000_000) - 1_000_000_000
        assert (await stack.balance(customer.id))["available_nanos"] == 0


async def test_a_hundred_at_once_on_a_balance_for_ten(stack: Stack) -> None:
    """The provider withholds every answer until all are decided: exactly ten are admitted, never eleven."""
    async with ScriptedProvider(Behaviour(gate=True)) as provider:
        model = await stack.model(provider.url)
        body = json.dumps({"model": model, "messages": PROMPT, "max_tokens": 1000}).encode()
        quote = expected_nanos(len(body), 1000)
        customer = await stack.customer(f"{(quote * 10 + quote // 2) / 1e9:.9f}")
        async with http(limits=httpx2.Limits(max_connections=100)) as client:

            async def call() -> int:
                answer = await client.post(
                    f"{stack.base_url}/chat/completions",
                    content=body,
                    headers={"authorization": f"Bearer {customer.key}", "content-type": "application/json"},
                )
                return int(answer.status_code)

            calls = [asyncio.create_task(call()) for _ in range(100)]

            async def refused() -> int:
                return sum(task.done() for task in calls)

            await eventually(refused, lambda count: count == 90)
            await provider.wait_for(lambda p: p.stats.held == 10)
            balance = await stack.balance(customer.id)
            assert balance["held_nanos"] == 10 * quote
            assert 0 <= balance["available_nanos"] < quote
            provider.release()
            statuses = await asyncio.gather(*calls)
        assert sorted(statuses) == [200] * 10 + [402] * 90
        assert provider.stats.requests == 10
        events = await stack.events(customer.id, 10)
        balance = await stack.settled(customer.id)
        assert balance["spent_nanos"] == sum(e["charge_nanos"] for e in events) == 10 * expected_nanos(5, 5)


async def test_the_books_balance(stack: Stack) -> None:
    assert stack.audit()["held_nanos"] == 0
