"""Fallback models: another model serves, at its own price, when no upstream of the one that was asked for can."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import httpx2
import pytest

from bench.provider import Behaviour, ScriptedProvider
from ledger.price_record import Price
from ledger.repricing import cost_of
from tests.stack import Customer, Stack, eventually, http

DEAR = {"input_per_million_usd": "5", "output_per_million_usd": "30"}
DEAR_CHARGE = 1 * 5_000 + 5 * 30_000
CHARGE = 1 * 2_500 + 5 * 10_000


class Three(NamedTuple):
    """Three models, each on a provider of its own; the first falls back on the two others."""

    stack: Stack
    providers: list[ScriptedProvider]
    models: list[str]

    async def ask(self, customer: Customer, **more: Any) -> httpx2.Response:
        body = {"model": self.models[0], "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50, **more}
        given = {name: value for name, value in body.items() if value is not None}
        async with http() as client:
            headers = {"authorization": f"Bearer {customer.key}"}
            return await client.post(f"{self.stack.base_url}/chat/completions", json=given, headers=headers)


async def three(stack: Stack, stack_of: AsyncExitStack, **first: Any) -> Three:
    """`first`: options of the model that is asked for."""
    providers = [await stack_of.enter_async_context(ScriptedProvider(record_bodies=True)) for _ in range(3)]
    limits: dict[str, Any] = {"max_output_tokens": 1_000, "max_input_tokens": 10_000}
    last = await stack.model(providers[2].url, **limits)
    middle = await stack.model(providers[1].url, target="inner-name", price=DEAR, **limits)
    asked = await stack.model(providers[0].url, fallbacks=[middle, last], **{**limits, **first})
    return Three(stack, providers, [asked, middle, last])


@pytest.fixture
async def stack_of() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_first_of_the_list_serves_at_its_own_price(
    stack: Stack, stack_of: AsyncExitStack, streamed: bool
) -> None:
    here, customer = await three(stack, stack_of), await stack.customer()
    here.providers[0].script(Behaviour(status=503))
    answer = await here.ask(customer, stream=streamed)
    assert answer.status_code == 200
    assert answer.headers["x-weir-fallback-model"] == here.models[1]
    assert json.loads(here.providers[1].seen[0].body or b"")["model"] == "inner-name"
    [event] = await stack.events(customer.id, 1)
    assert (event["model"], event["fallback_model"]) == (here.models[0], here.models[1])
    assert (event["served_model"], event["charge_nanos"]) == ("inner-name", DEAR_CHARGE)
    [price] = (await stack.ask("GET", f"/prices?version={event['price_version']}"))["items"]
    assert price["model"] == here.models[1]
    assert cost_of(event, Price(event["price_version"], price["rates_picos"])) == DEAR_CHARGE
    assert (await stack.settled(customer.id))["spent_nanos"] == DEAR_CHARGE


async def test_the_hold_covers_the_dearest_of_the_list(stack: Stack, stack_of: AsyncExitStack) -> None:
    here, customer = await three(stack, stack_of), await stack.customer()
    alone = await stack.model(here.providers[1].url, price=DEAR, max_output_tokens=1_000, max_input_tokens=10_000)
    for model in (here.models[0], alone):
        assert (await here.ask(customer, model=model)).status_code == 200
    dear, cheap = await stack.events(customer.id, 2)
    assert (dear["model"], cheap["model"]) == (alone, here.models[0])
    same_length = len(alone) == len(here.models[0])
    assert same_length, "the quote goes by the length of the body"
    assert dear["quote_nanos"] == cheap["quote_nanos"]
    assert (dear["charge_nanos"], cheap["charge_nanos"]) == (DEAR_CHARGE, CHARGE)
    assert cheap["fallback_model"] is None


async def test_they_are_asked_in_order_and_the_last_word_is_the_callers(stack: Stack, stack_of: AsyncExitStack) -> None:
    here, customer = await three(stack, stack_of), await stack.customer()
    for provider in here.providers[:2]:
        provider.script(Behaviour(status=500))
    assert (await here.ask(customer)).headers["x-weir-fallback-model"] == here.models[2]
    here.providers[2].script(Behaviour(status=502))
    refused = await here.ask(customer)
    assert refused.status_code == 502
    assert [p.stats.requests for p in here.providers] == [2, 2, 2]
    assert (await stack.settled(customer.id))["spent_nanos"] == CHARGE


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_the_callers_own_mistake_stays_with_the_model(
    stack: Stack, stack_of: AsyncExitStack, status: int
) -> None:
    here, customer = await three(stack, stack_of), await stack.customer()
    here.providers[0].script(Behaviour(status=status))
    assert (await here.ask(customer)).status_code == status
    assert here.providers[1].stats.requests == 0


async def test_after_the_first_byte_nobody_stands_in(stack: Stack, stack_of: AsyncExitStack) -> None:
    here, customer = await three(stack, stack_of), await stack.customer()
    here.providers[0].script(Behaviour(text="one two three", cut_after_chunks=1))
    with pytest.raises(httpx2.RemoteProtocolError):
        await here.ask(customer, stream=True)
    assert here.providers[1].stats.requests == 0


async def test_a_key_is_served_by_its_models_only(stack: Stack, stack_of: AsyncExitStack) -> None:
    here = await three(stack, stack_of)
    customer = await stack.customer(key={"models": [here.models[0], here.models[2]]})
    here.providers[0].script(Behaviour(status=500))
    assert (await here.ask(customer)).headers["x-weir-fallback-model"] == here.models[2]
    only = await stack.customer(key={"models": [here.models[0]]})
    assert (await here.ask(only)).status_code == 500
    assert here.providers[1].stats.requests == 0


async def test_a_model_at_its_limit_has_a_stand_in(stack: Stack, stack_of: AsyncExitStack) -> None:
    here = await three(stack, stack_of, upstream={"limits": {"requests_per_minute": 1}})
    customer = await stack.customer()
    first, second = await here.ask(customer), await here.ask(customer)
    assert "x-weir-fallback-model" not in first.headers
    assert second.headers["x-weir-fallback-model"] == here.models[1]


async def test_each_model_has_its_own_output_cap(stack: Stack, stack_of: AsyncExitStack) -> None:
    """Without a cap of the caller's, the larger maximum is held for; who serves is told the part of it that it can."""
    here = await three(stack, stack_of, max_output_tokens=8_000)
    customer = await stack.customer()
    larger = await here.ask(customer, max_tokens=None)
    assert "x-weir-output-cap" not in larger.headers, "8,000 is the model's maximum"
    here.providers[0].script(Behaviour(status=500))
    smaller = await here.ask(customer, max_tokens=None)
    assert smaller.headers["x-weir-fallback-model"] == here.models[1]
    assert "x-weir-output-cap" not in smaller.headers, "1,000 is this one's, and less than is held for"
    refused = await here.ask(customer, max_tokens=2_000)
    assert refused.status_code == 500, "a cap that the caller set is not changed, so those with less do not stand in"


async def test_moves_are_counted(stack: Stack, stack_of: AsyncExitStack) -> None:
    here, customer = await three(stack, stack_of), await stack.customer()
    here.providers[0].script(Behaviour(status=500))
    assert (await here.ask(customer)).status_code == 200
    await stack.settled(customer.id)
    moved = f'weir_fallbacks_total{{fallback="{here.models[1]}",model="{here.models[0]}"}} 1.0'
    charged = f'weir_charge_nanos_total{{model="{here.models[1]}",provider="openai"}} {float(DEAR_CHARGE)}'
    await eventually(stack.metrics, lambda text: moved in text and charged in text)
