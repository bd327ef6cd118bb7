"""Sessions over WebSocket on several upstreams: one that does not answer in time is noticed by nobody."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from tests.integration.test_sessions import CHARGE, SpokenTo, ask, books_agree, hear, session
from tests.stack import PRICE, Stack, eventually

WITHIN_S = 0.3


class Silent(SpokenTo):
    """Takes a session and says nothing."""

    async def talk(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in connection:
                self.frames.append(frame)


class Leaves(SpokenTo):
    """Takes a session and ends it."""

    async def talk(self, connection: ServerConnection) -> None:
        await connection.close()


class Refuses(SpokenTo):
    """Answers with a status in place of a session."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status
        self.asked = 0

    def refuse(self, connection: ServerConnection, request: Request) -> Response:
        del request
        self.asked += 1
        return connection.respond(HTTPStatus(self.status), "no")


@pytest.fixture
async def stack_of() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def pooled(stack: Stack, stack_of: AsyncExitStack, *providers: SpokenTo, **each: Any) -> str:
    """A model at these, one after the other."""
    targets = []
    for priority, spoken in enumerate(providers):
        refuse = spoken.refuse if isinstance(spoken, Refuses) else None
        server = await stack_of.enter_async_context(
            serve(spoken.talk, "127.0.0.1", 0, compression=None, process_request=refuse)
        )
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        name = f"u-{uuid.uuid4().hex[:8]}"
        body = {"name": name, "provider": "openai", "base_url": url, "credential": "sk", "priority": priority}
        await stack.ask("POST", "/upstreams", {**body, "first_byte_timeout_s": WITHIN_S, **each})
        targets.append({"upstream": name, "model": f"inner-{priority}"})
    model = f"m-{uuid.uuid4().hex[:8]}"
    form = {"upstreams": targets, "price": PRICE, "max_output_tokens": 1_000, "max_input_tokens": 10_000}
    await stack.ask("PUT", f"/models/{model}", form)
    return model


BAD: dict[str, Callable[[], SpokenTo]] = {
    "silent": Silent,
    "leaves": Leaves,
    "503": lambda: Refuses(503),
    "429": lambda: Refuses(429),
}


@pytest.mark.parametrize("how", BAD)
async def test_a_realtime_session_begins_at_the_next_one(stack: Stack, stack_of: AsyncExitStack, how: str) -> None:
    good = SpokenTo()
    model, customer = await pooled(stack, stack_of, BAD[how](), good), await stack.customer()
    async with session(stack, customer.key, f"/openai/v1/realtime?model={model}") as caller:
        assert (await hear(caller, "session.created"))[0]["type"] == "session.created"
        await ask(caller)
        await hear(caller, "response.done")
    assert good.paths == ["/v1/realtime?model=inner-1"]
    await books_agree(stack, customer, lambda balance: balance["spent_nanos"] == CHARGE)


async def test_a_response_over_websocket_is_asked_for_at_the_next_one(stack: Stack, stack_of: AsyncExitStack) -> None:
    bad, good = Silent(), SpokenTo()
    model, customer = await pooled(stack, stack_of, bad, good), await stack.customer()
    async with session(stack, customer.key, "/openai/v1/responses") as caller:
        for _ in range(2):
            await ask(caller, model=model, input="Hi")
            await hear(caller, "response.completed")
    assert (len(bad.frames), len(good.frames)) == (1, 2)
    assert '"inner-0"' in str(bad.frames[0])
    assert '"inner-1"' in str(good.frames[0])
    charged = 2 * (11 * 2_500 + 5 * 10_000)
    await books_agree(stack, customer, lambda balance: balance["spent_nanos"] == charged)


async def test_when_nobody_answers_the_caller_is_told_and_nothing_is_held(
    stack: Stack, stack_of: AsyncExitStack
) -> None:
    model, customer = await pooled(stack, stack_of, Silent(), Silent()), await stack.customer()
    with pytest.raises(InvalidStatus) as refused:
        async with session(stack, customer.key, f"/openai/v1/realtime?model={model}"):
            pass
    assert refused.value.response.status_code == 503
    balance = await stack.settled(customer.id)
    assert (balance["spent_nanos"], balance["held_nanos"]) == (0, 0)


async def test_what_is_the_callers_own_mistake_is_not_tried_elsewhere(stack: Stack, stack_of: AsyncExitStack) -> None:
    first, second = Refuses(404), Refuses(404)
    model, customer = await pooled(stack, stack_of, first, second), await stack.customer()
    with pytest.raises(InvalidStatus):
        async with session(stack, customer.key, f"/openai/v1/realtime?model={model}"):
            pass
    assert (first.asked, second.asked) == (1, 0)


async def test_a_session_has_a_place_at_its_upstream_until_it_ends(stack: Stack, stack_of: AsyncExitStack) -> None:
    model = await pooled(stack, stack_of, SpokenTo(), limits={"concurrency": 1})
    customer = await stack.customer()
    path = f"/openai/v1/realtime?model={model}"
    async with session(stack, customer.key, path) as caller:
        await hear(caller, "session.created")
        with pytest.raises(InvalidStatus) as refused:
            async with session(stack, customer.key, path):
                pass
        assert refused.value.response.status_code == 503

    async def again() -> bool:
        try:
            async with session(stack, customer.key, path) as caller:
                await hear(caller, "session.created")
        except InvalidStatus:
            return False
        return True

    assert await eventually(again, bool)
    await asyncio.wait_for(stack.settled(customer.id), 60)
