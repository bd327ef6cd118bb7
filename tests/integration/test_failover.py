"""Several upstreams for one model: callers do not notice when one fails, and no request is charged twice."""

import asyncio
import json
import uuid
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.faults.http_callers import Connection
from tests.integration.test_main_job import expected_nanos
from tests.stack import PRICE, Customer, Stack, eventually, http

CHARGE = expected_nanos(1, 5)


class Pool:
    """A model on several scripted providers."""

    def __init__(self, stack: Stack, providers: list[ScriptedProvider], names: list[str], model: str) -> None:
        self.stack, self.providers, self.names, self.model = stack, providers, names, model

    async def ask(self, client: httpx2.AsyncClient, customer: Customer, **more: Any) -> httpx2.Response:
        body = {"model": self.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50, **more}
        headers = {"authorization": f"Bearer {customer.key}"}
        return await client.post(f"{self.stack.base_url}/chat/completions", json=body, headers=headers)

    async def many(self, customer: Customer, count: int, **more: Any) -> Counter[int]:
        async with http() as client:
            answers = await asyncio.gather(*(self.ask(client, customer, **more) for _ in range(count)))
        return Counter(answer.status_code for answer in answers)


async def pool(stack: Stack, stack_of: AsyncExitStack, count: int, **each: Any) -> Pool:
    """`each`: options of the upstreams, a list for different ones."""
    providers = [await stack_of.enter_async_context(ScriptedProvider()) for _ in range(count)]
    names = []
    for number, provider in enumerate(providers):
        name = f"u-{uuid.uuid4().hex[:8]}"
        options = {field: value[number] if isinstance(value, list) else value for field, value in each.items()}
        body = {
            "name": name,
            "provider": "openai",
            "base_url": f"{provider.url}/v1",
            "credential": f"sk-{number}",
            **options,
        }
        await stack.ask("POST", "/upstreams", body)
        names.append(name)
    model = f"m-{uuid.uuid4().hex[:8]}"
    targets = [{"upstream": name, "model": model} for name in names]
    form = {"upstreams": targets, "price": PRICE, "max_output_tokens": 1_000, "max_input_tokens": 10_000}
    await stack.ask("PUT", f"/models/{model}", form)
    return Pool(stack, providers, names, model)


FAILURES = {
    "cut": Behaviour(cut_before_answer=True),
    "500": Behaviour(status=500),
    "503": Behaviour(status=503),
    "429": Behaviour(status=429, headers={"retry-after": "30"}),
    "401": Behaviour(status=401),
    "stall": Behaviour(gate=True),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_the_next_upstream_answers_under_the_same_hold(stack: Stack, failure: str) -> None:
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 2, priority=[0, 1], first_byte_timeout_s=0.3)
        customer = await stack.customer()
        here.providers[0].script(FAILURES[failure])
        assert await here.many(customer, 1) == {200: 1}
        [event] = await stack.events(customer.id, 1)
        assert (event["upstream"], event["charge_nanos"], event["end"]) == (here.names[1], CHARGE, "settled")
        balance = await stack.settled(customer.id)
        assert balance["spent_nanos"] == CHARGE
        assert [p.stats.requests for p in here.providers] == [1, 1]


async def test_a_connection_that_is_refused_costs_nobody_anything(stack: Stack) -> None:
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 2, priority=[0, 1])
        customer = await stack.customer()
        await here.providers[0].stop()
        assert await here.many(customer, 10) == {200: 10}
        assert (await stack.settled(customer.id))["spent_nanos"] == 10 * CHARGE


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_the_callers_own_mistake_is_not_tried_elsewhere(stack: Stack, status: int) -> None:
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 2, priority=[0, 1])
        customer = await stack.customer()
        here.providers[0].script(Behaviour(status=status))
        assert await here.many(customer, 1) == {status: 1}
        assert here.providers[1].stats.requests == 0


async def test_after_the_first_byte_there_is_no_other(stack: Stack) -> None:
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 2, priority=[0, 1])
        customer = await stack.customer()
        here.providers[0].script(Behaviour(text="one two three four five", cut_after_chunks=2))
        with pytest.raises(httpx2.RemoteProtocolError):
            await here.many(customer, 1, stream=True)
        assert here.providers[1].stats.requests == 0
        [event] = await stack.events(customer.id, 1)
        assert event["outcome"] == "upstream_broke"


async def test_when_all_fail_the_last_answer_is_the_callers(stack: Stack) -> None:
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 2, priority=[0, 1])
        customer = await stack.customer()
        for provider in here.providers:
            provider.script(
                Behaviour(status=503, body=b'{"error":{"message":"busy"}}', content_type="application/json")
            )
        async with http() as client:
            answer = await here.ask(client, customer)
        assert (answer.status_code, answer.json()["error"]["message"]) == (503, "busy")
        assert (await stack.settled(customer.id))["spent_nanos"] == 0


async def test_a_cooldown_is_kept_and_a_circuit_opens(stack: Stack) -> None:
    """One that says 429 with `retry-after` is left alone at once, one that fails after three in a row."""
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 3, priority=[0, 1, 2])
        customer = await stack.customer()
        here.providers[0].script(FAILURES["429"])
        here.providers[1].script(Behaviour(status=500))
        for _ in range(12):
            assert await here.many(customer, 1) == {200: 1}
        assert here.providers[0].stats.requests == 1
        assert 3 <= here.providers[1].stats.requests <= 5
        assert (await stack.settled(customer.id))["spent_nanos"] == 12 * CHARGE


async def test_a_refused_credential_is_out_until_the_operator_changes_it(stack: Stack) -> None:
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 2, priority=[0, 1])
        customer = await stack.customer()
        here.providers[0].accept(["sk-renewed"])
        for _ in range(5):
            assert await here.many(customer, 1) == {200: 1}
        assert here.providers[0].stats.requests == 1
        upstream = (await stack.upstream(here.names[0]))["id"]
        await stack.ask("PATCH", f"/upstreams/{upstream}", {"credential": "sk-renewed"})
        assert await here.many(customer, 1) == {200: 1}
        assert here.providers[0].seen[-1].credential == "sk-renewed"


async def test_a_slow_one_gets_less(stack: Stack) -> None:
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 2)
        customer = await stack.customer()
        here.providers[0].script(Behaviour(first_byte_delay_s=0.1))
        async with http() as client:
            for _ in range(60):
                assert (await here.ask(client, customer)).status_code == 200
        slow, quick = (p.stats.requests for p in here.providers)
        assert quick > 3 * slow


async def test_a_prompt_cache_key_stays_with_its_upstream(stack: Stack) -> None:
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 3)
        customer = await stack.customer()
        async with http() as client:
            homes = set[int]()
            for key in range(20):  # that all of them fall on one of three happens once in 10**9 runs
                before = [p.stats.requests for p in here.providers]
                for _ in range(3):
                    answer = await here.ask(client, customer, prompt_cache_key=f"k{key}")
                    assert answer.status_code == 200
                served = [p.stats.requests - was for p, was in zip(here.providers, before, strict=True)]
                assert sorted(served) == [0, 0, 3]
                homes.add(served.index(3))
        assert len(homes) >= 2
        by_upstream = await stack.events(customer.id, 60)
        assert len({event["upstream"] for event in by_upstream}) == len(homes)


async def test_a_weight_of_nothing_sends_nothing(stack: Stack) -> None:
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 2, weight=[0, 1])
        customer = await stack.customer()
        assert await here.many(customer, 20) == {200: 20}
        assert here.providers[0].stats.requests == 0


async def test_a_change_is_in_force_for_every_later_request(stack: Stack) -> None:
    """Live configuration: the moment the change is answered, no request goes the old way; none fails meanwhile."""
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 2, weight=[1, 0])
        customer = await stack.customer()
        ids = {name: (await stack.upstream(name))["id"] for name in here.names}
        stop, statuses = asyncio.Event(), Counter[int]()

        async def load() -> None:
            async with http() as client:
                while not stop.is_set():
                    statuses[(await here.ask(client, customer)).status_code] += 1

        callers = [asyncio.create_task(load()) for _ in range(6)]
        await here.providers[0].wait_for(lambda p: p.stats.requests > 20)
        await stack.ask("PATCH", f"/upstreams/{ids[here.names[1]]}", {"weight": 1, "credential": "sk-live"})
        await stack.ask("PATCH", f"/upstreams/{ids[here.names[0]]}", {"weight": 0})
        await asyncio.sleep(0)
        before = here.providers[0].stats.requests
        under_way = 6  # admitted under the old version before the answer, and perhaps not yet sent
        await here.providers[1].wait_for(lambda p: p.stats.requests > 60)
        stop.set()
        await asyncio.gather(*callers)
        assert set(statuses) == {200}
        assert here.providers[0].stats.requests - before <= under_way
        assert {seen.credential for seen in here.providers[1].seen} == {"sk-live"}


async def test_a_credential_changes_under_load_and_no_request_fails(stack: Stack) -> None:
    """Two rotations within 2,000 requests; the provider refuses the old credential as soon as nobody can be using it."""
    async with AsyncExitStack() as stack_of:
        here = await pool(stack, stack_of, 1)
        customer, provider = await stack.customer(), here.providers[0]
        upstream = (await stack.upstream(here.names[0]))["id"]
        host, port = stack.gateway.removeprefix("http://").split(":")
        body = json.dumps({"model": here.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9})
        statuses, rounds, stop = Counter[int](), [0] * 8, asyncio.Event()

        async def load(number: int) -> None:
            line, bearer = Connection(host, int(port)), f"Bearer {customer.key}"
            while not stop.is_set():
                answer = await line.post("/openai/v1/chat/completions", body.encode(), authorization=bearer)
                statuses[answer[0]] += 1
                rounds[number] += 1
            line.close()

        async def asked(count: int) -> None:
            await provider.wait_for(lambda p: p.stats.requests >= count)

        callers = [asyncio.create_task(load(number)) for number in range(len(rounds))]
        for credential, count in (("sk-second", 700), ("sk-third", 1_400)):
            await asked(count)
            provider.accept(None)
            await stack.ask("PATCH", f"/upstreams/{upstream}", {"credential": credential})
            seen = rounds.copy()  # who was under way may have the old one: what each of them asks next has not

            async def all_have_asked_again(seen: list[int] = seen) -> bool:
                return all(now >= before + 2 for now, before in zip(rounds, seen, strict=True))

            await eventually(all_have_asked_again, bool)
            provider.accept([credential])
        await asked(2_000)
        stop.set()
        await asyncio.gather(*callers)
        assert set(statuses) == {200}
        assert statuses.total() == provider.stats.requests >= 2_000
        assert set(provider.stats.by_credential) == {"sk-0", "sk-second", "sk-third"}
        assert (await stack.settled(customer.id))["spent_nanos"] == statuses.total() * CHARGE


async def test_the_books_balance(stack: Stack) -> None:
    await eventually(stack.metrics, lambda text: "weir_failovers_total" in text)
    assert stack.audit()["agrees"]
