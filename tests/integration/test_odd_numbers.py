"""Numbers that nobody can mean, through the whole product: they are refused or estimated, and always settled."""

import json
from typing import Any

import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.stack import Customer, Stack, http

BODY = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}


async def ask(stack: Stack, customer: Customer, model: str, **more: Any) -> Any:
    async with http() as client:
        return await client.post(
            f"{stack.base_url}/chat/completions",
            json={**BODY, "model": model, **more},
            headers={"authorization": f"Bearer {customer.key}"},
        )


@pytest.mark.wire("1c.2", "1d.4")
async def test_more_answers_than_money_can_buy_are_a_402(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        answer = await ask(stack, customer, model, n=2**31 - 1, max_tokens=4_000)
        assert (answer.status_code, answer.headers["x-weir-refusal"]) == (402, "insufficient_balance")
        assert provider.stats.requests == 0
    assert (await stack.balance(customer.id))["held_nanos"] == 0


@pytest.mark.wire("5.12")
@pytest.mark.parametrize("count", [2**53 - 1, 2**53, 2**63, -1, 1.5, "many"])
async def test_a_count_that_no_answer_has_is_settled(stack: Stack, count: Any) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count, "total_tokens": count}
    answer = {
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"content": "Hello to you"}, "finish_reason": "stop"}],
        "usage": usage,
    }
    behaviour = Behaviour(body=json.dumps(answer).encode(), content_type="application/json")
    async with ScriptedProvider(behaviour) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        assert (await ask(stack, customer, model)).status_code == 200
    [event] = await stack.events(customer.id, 1)
    assert (event["outcome"], event["end"], event["estimated"]) == ("complete", "settled", True)
    assert 0 < event["charge_nanos"] <= event["quote_nanos"]
    balance = await stack.settled(customer.id)
    assert balance["spent_nanos"] == event["charge_nanos"]


async def test_the_books_balance(stack: Stack) -> None:
    assert stack.audit()["agrees"]
