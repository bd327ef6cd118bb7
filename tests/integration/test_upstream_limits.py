"""Limits of upstreams, quotas that providers report, and the line of those who wait: over the real path."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.integration.test_failover import CHARGE, Pool, pool
from tests.stack import Customer, Stack, eventually, http


@pytest.fixture
async def customer(stack: Stack) -> Customer:
    return await stack.customer()


@pytest.fixture
async def stack_of() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def asking(here: Pool, customer: Customer, count: int, **more: Any) -> list[asyncio.Task[httpx2.Response]]:
    """So many requests under way, each on a connection of its own."""

    async def one() -> httpx2.Response:
        async with http() as client:
            return await here.ask(client, customer, **more)

    return [asyncio.create_task(one()) for _ in range(count)]


def holding(count: int, *, of: int | None = None) -> Callable[[ScriptedProvider], bool]:
    """Whether a provider holds so many requests back, of so many that it was sent."""
    return lambda provider: provider.stats.held == count and of in (None, provider.stats.requests)


async def nothing_is_left(stack: Stack, customer: Customer, charged: int) -> None:
    balance = await eventually(lambda: stack.settled(customer.id), lambda b: b["spent_nanos"] == charged * CHARGE)
    assert balance["available_nanos"] == balance["credited_nanos"] - charged * CHARGE


async def test_when_all_are_at_their_limits_the_caller_is_told_when_to_come_again(
    stack: Stack, stack_of: AsyncExitStack, customer: Customer
) -> None:
    here = await pool(stack, stack_of, 2, priority=[0, 1], limits=[{"concurrency": 2}, {"concurrency": 1}])
    for provider in here.providers:
        provider.script(Behaviour(gate=True))
    tasks = await asking(here, customer, 3)
    for provider, held in zip(here.providers, (2, 1), strict=True):
        await provider.wait_for(holding(held))
    async with http() as client:
        refused = await here.ask(client, customer)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["x-weir-refusal"] == "temporarily_unavailable"
    assert "limit" in refused.json()["error"]["message"]
    for provider in here.providers:
        provider.release()
    assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
    assert [p.stats.requests for p in here.providers] == [2, 1]
    await nothing_is_left(stack, customer, 3)
    [voided] = [event for event in await stack.events(customer.id, 4) if event["end"] == "voided"]
    assert (voided["outcome"], voided["upstream"], voided["charge_nanos"]) == ("refused_upstream", None, 0)
    text = await eventually(stack.metrics, lambda found: f'limited_total{{upstream="{here.names[1]}"}} 1.0' in found)
    assert f'weir_upstream_limited_total{{upstream="{here.names[0]}"}} 2.0' in text


async def test_a_rate_moves_what_is_above_it_and_a_change_counts_at_once(
    stack: Stack, stack_of: AsyncExitStack, customer: Customer
) -> None:
    here = await pool(stack, stack_of, 2, priority=[0, 1], limits=[{"requests_per_minute": 2}, {}])
    assert await here.many(customer, 8) == {200: 8}
    assert [p.stats.requests for p in here.providers] == [2, 6]
    first = await stack.upstream(here.names[0])
    assert first["limits"] == {"requests_per_minute": 2}
    await stack.ask("PATCH", f"/upstreams/{first['id']}", {"limits": {"requests_per_minute": None}})
    assert await here.many(customer, 4) == {200: 4}
    assert [p.stats.requests for p in here.providers] == [6, 6]


async def test_tokens_count_as_quoted_until_they_are_measured(
    stack: Stack, stack_of: AsyncExitStack, customer: Customer
) -> None:
    """50 tokens may be written, 5 are: the limit of 200 has room for two under way, and for many one after the other."""
    here = await pool(stack, stack_of, 1, limits={"tokens_per_minute": 200})
    here.providers[0].script(Behaviour(gate=True))
    tasks = await asking(here, customer, 2)
    await here.providers[0].wait_for(lambda p: p.stats.held == 2)
    async with http() as client:
        refused = await here.ask(client, customer)
        assert refused.status_code == 503
        here.providers[0].script(Behaviour())
        here.providers[0].release()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
        for _ in range(8):
            assert (await here.ask(client, customer)).status_code == 200


OPENAI = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"}


@pytest.mark.parametrize("status", [200, 429])
async def test_what_a_provider_says_is_left_counts(
    stack: Stack, stack_of: AsyncExitStack, customer: Customer, status: int
) -> None:
    """Before it refuses, and for how long after it has."""
    here = await pool(stack, stack_of, 2, priority=[0, 1])
    here.providers[0].script(Behaviour(status=status, headers=OPENAI))
    for _ in range(4):
        assert await here.many(customer, 1) == {200: 1}
    assert [p.stats.requests for p in here.providers] == [1, 3 if status == 200 else 4]


async def test_one_that_is_alone_is_asked_whatever_is_left(
    stack: Stack, stack_of: AsyncExitStack, customer: Customer
) -> None:
    here = await pool(stack, stack_of, 1)
    here.providers[0].script(Behaviour(headers=OPENAI))
    assert await here.many(customer, 5) == {200: 5}


async def with_a_line(stack: Stack, here: Pool, size: int, timeout_s: float = 60) -> None:
    form = {
        "upstreams": [{"upstream": name, "model": here.model} for name in here.names],
        "price": {"input_per_million_usd": "2.5", "output_per_million_usd": "10"},
        "max_output_tokens": 1_000,
        "queue_size": size,
        "queue_timeout_s": timeout_s,
    }
    await stack.ask("PUT", f"/models/{here.model}", form)


async def waiting(stack: Stack, here: Pool, count: int) -> None:
    line = f'weir_queue_waiting{{model="{here.model}"}} {float(count)}'
    await eventually(stack.metrics, lambda text: line in text)


async def test_who_waits_is_served_in_order_and_the_line_is_bounded(
    stack: Stack, stack_of: AsyncExitStack, customer: Customer
) -> None:
    here = await pool(stack, stack_of, 1, limits={"concurrency": 1})
    await with_a_line(stack, here, 3)
    provider = here.providers[0]
    provider.script(Behaviour(gate=True))
    tasks: list[asyncio.Task[httpx2.Response]] = []
    for number in range(4):
        tasks += await asking(here, customer, 1, max_tokens=number + 1)
        if number:
            await waiting(stack, here, number)
        else:
            await provider.wait_for(lambda p: p.stats.held == 1)
    async with http() as client:
        assert (await here.ask(client, customer)).status_code == 503
    tasks.pop(2).cancel()  # a caller who leaves is out of the line, and its hold with it
    await waiting(stack, here, 2)
    for number in range(3):
        await provider.wait_for(holding(1, of=number + 1))
        provider.release()
        assert (await asyncio.wait_for(tasks[number], 30)).status_code == 200, "the longest waiting is the next"
    assert provider.stats.requests == 3
    # The answer has as many tokens as were allowed: 1, 2 and 4, because the third caller has left.
    balance = await stack.settled(customer.id)
    assert balance["spent_nanos"] == 3 * 2_500 + (1 + 2 + 4) * 10_000


async def test_a_crowd_waits_and_the_upstream_never_has_more_than_its_limit(
    stack: Stack, stack_of: AsyncExitStack, customer: Customer
) -> None:
    here = await pool(stack, stack_of, 2, limits={"concurrency": 3})
    await with_a_line(stack, here, 200)
    for provider in here.providers:
        provider.script(Behaviour(first_byte_delay_s=0.005))
    assert await here.many(customer, 100) == {200: 100}
    for provider in here.providers:
        ends = [(seen.ended_s, -1) for seen in provider.seen]
        steps = sorted([(seen.arrived_s, 1) for seen in provider.seen] + ends)
        assert max(itertools.accumulate(step for _, step in steps)) <= 3
    await nothing_is_left(stack, customer, 100)


async def test_a_line_ends_when_the_time_is_up(stack: Stack, stack_of: AsyncExitStack, customer: Customer) -> None:
    here = await pool(stack, stack_of, 1, limits={"concurrency": 1})
    await with_a_line(stack, here, 3, timeout_s=0.05)
    here.providers[0].script(Behaviour(gate=True))
    tasks = await asking(here, customer, 1)
    await here.providers[0].wait_for(lambda p: p.stats.held == 1)
    assert await here.many(customer, 1) == {503: 1}
    here.providers[0].release()
    assert (await tasks[0]).status_code == 200
    await nothing_is_left(stack, customer, 1)


async def test_a_rate_that_is_raised_serves_who_waits(
    stack: Stack, stack_of: AsyncExitStack, customer: Customer
) -> None:
    """The limit is raised while three wait: they go as fast as it allows, and nobody is refused."""
    here = await pool(stack, stack_of, 1, limits={"requests_per_minute": 1})
    await with_a_line(stack, here, 10)
    assert await here.many(customer, 1) == {200: 1}
    tasks = await asking(here, customer, 3)
    await waiting(stack, here, 3)
    upstream = (await stack.upstream(here.names[0]))["id"]
    await stack.ask("PATCH", f"/upstreams/{upstream}", {"limits": {"requests_per_minute": 6_000}})
    assert await here.many(customer, 1) == {200: 1}  # with it the new limit comes to this worker
    assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
    await nothing_is_left(stack, customer, 5)


async def test_a_refused_credential_shows(stack: Stack, stack_of: AsyncExitStack, customer: Customer) -> None:
    here = await pool(stack, stack_of, 2, priority=[0, 1])
    here.providers[0].accept(["sk-renewed"])
    assert await here.many(customer, 1) == {200: 1}
    alarm = f'weir_upstream_credential_refused_total{{upstream="{here.names[0]}"}} 1.0'
    usable = f'weir_upstream_usable{{model="{here.model}",upstream="{here.names[0]}"}}'
    text = await eventually(stack.metrics, lambda found: f"{usable} 0.0" in found)
    assert alarm in text
    upstream = (await stack.upstream(here.names[0]))["id"]
    await stack.ask("PATCH", f"/upstreams/{upstream}", {"credential": "sk-renewed"})
    assert await here.many(customer, 1) == {200: 1}
    await eventually(stack.metrics, lambda found: f"{usable} 1.0" in found)
    assert here.providers[0].stats.requests == 2
