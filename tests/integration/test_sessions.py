"""WebSocket sessions: each response is admitted, held and billed by itself, and the session ends with the balance."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.stack import Customer, Stack, eventually

SPOKEN = {
    "input_tokens": 100,
    "output_tokens": 40,
    "total_tokens": 140,
    "input_token_details": {
        "cached_tokens": 30, "text_tokens": 60, "audio_tokens": 40, "cached_tokens_details": {"audio_tokens": 10},
    },
    "output_token_details": {"text_tokens": 15, "audio_tokens": 25},
}  # fmt: skip
BUCKETS = {"input_uncached": 70, "cache_read": 30, "output": 40, "input_audio": 30, "output_audio": 25}
# 70 x 2.50 + 30 x 1.25 + 40 x 10 USD a million tokens: tests/stack.py has no rate for audio.
CHARGE = 70 * 2_500 + 30 * 1_250 + 40 * 10_000


class SpokenTo:
    """A provider of sessions: what it was sent, and with which headers."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.usage: dict[str, Any] | None = SPOKEN
        self.url = ""

    async def talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.paths.append(connection.request.path)
        self.headers.append({name.lower(): value for name, value in connection.request.headers.raw_items()})
        with contextlib.suppress(ConnectionClosed):
            await connection.send(json.dumps({"type": "session.created", "session": {}}))
            async for frame in connection:
                self.frames.append(frame)
                event = json.loads(frame) if isinstance(frame, str) else {}
                if event.get("type") == "response.create":
                    await self.answer(connection, event)

    async def answer(self, connection: ServerConnection, event: dict[str, Any]) -> None:
        number, model = len(self.frames), event.get("model", "gpt-spoken")
        shared = {"id": f"resp_{number}", "model": model}
        await connection.send(json.dumps({"type": "response.created", "response": shared}))
        await connection.send(json.dumps({"type": "response.output_text.delta", "delta": "Hello there."}))
        await self.gate.wait()
        if "model" in event:
            usage = {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16}
            done = {"type": "response.completed", "response": {**shared, "usage": usage}}
        else:
            done = {"type": "response.done", "response": {**shared, "usage": self.usage}}
        await connection.send(json.dumps(done))


@pytest.fixture
async def provider() -> AsyncIterator[SpokenTo]:
    spoken = SpokenTo()
    async with serve(spoken.talk, "127.0.0.1", 0, compression=None) as server:
        spoken.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield spoken


def session(stack: Stack, key: str, path: str, **more: Any) -> connect:
    url = stack.gateway.replace("http", "ws", 1) + path
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return connect(url, additional_headers=headers, proxy=None, **more)


async def hear(connection: ClientConnection, until: str) -> list[dict[str, Any]]:
    """Events up to one of this type."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["type"] != until:
        found.append(json.loads(await asyncio.wait_for(connection.recv(), 10)))
    return found


async def ask(connection: ClientConnection, **more: Any) -> None:
    await connection.send(json.dumps({"type": "response.create", **more}))


async def books_agree(stack: Stack, customer: Customer, until: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    balance = await eventually(lambda: stack.settled(customer.id), until)
    assert balance["credited_nanos"] == balance["spent_nanos"] + balance["available_nanos"]
    return balance


@pytest.mark.wire("1b.10", "5.4")
async def test_each_response_of_a_session_is_billed_by_itself(stack: Stack, provider: SpokenTo) -> None:
    model, customer = await stack.model(provider.url, target="gpt-spoken"), await stack.customer()
    async with session(stack, customer.key, f"/openai/v1/realtime?model={model}") as caller:
        await hear(caller, "session.created")
        await caller.send(b"\x00\x01audio")
        for _ in range(3):
            await ask(caller)
            assert [e["type"] for e in await hear(caller, "response.done")][-1] == "response.done"
        held = (await stack.balance(customer.id))["held_nanos"]
        assert held > 0, "the next response is held for"
    balance = await books_agree(stack, customer, lambda b: b["spent_nanos"] == 3 * CHARGE)
    assert balance["held_nanos"] == 0
    events = await stack.events(customer.id, 4)
    billed = [event for event in events if event["end"] == "settled"]
    assert [event["usage"] for event in billed] == [BUCKETS] * 3
    assert {(e["endpoint"], e["dialect"], e["streamed"], e["outcome"]) for e in billed} == {
        ("realtime", "openai", True, "complete")
    }
    assert [event["end"] for event in events].count("voided") == 1
    assert provider.frames[0] == b"\x00\x01audio"
    assert provider.paths == ["/v1/realtime?model=gpt-spoken"]
    assert provider.headers[0]["authorization"] == "Bearer sk-upstream"
    assert customer.key not in json.dumps(provider.headers)


@pytest.mark.wire("1b.10")
async def test_the_real_sdk(stack: Stack, provider: SpokenTo) -> None:
    model, customer = await stack.model(provider.url), await stack.customer()
    async with (
        openai.AsyncOpenAI(base_url=stack.base_url, api_key=customer.key) as client,
        client.realtime.connect(model=model) as connection,
    ):
        await connection.response.create()
        async for event in connection:
            if event.type == "response.done":
                assert event.response.usage is not None
                assert event.response.usage.output_tokens == 40
                break
    await books_agree(stack, customer, lambda b: b["spent_nanos"] == CHARGE)


@pytest.mark.wire("1a.1")
async def test_a_browsers_key_is_in_the_subprotocol_and_stays_here(stack: Stack, provider: SpokenTo) -> None:
    model, customer = await stack.model(provider.url), await stack.customer()
    offered: Any = ["realtime", f"openai-insecure-api-key.{customer.key}", "openai-beta.realtime-v1"]
    async with session(stack, "", f"/v1/realtime?model={model}", subprotocols=offered) as caller:
        assert caller.subprotocol == "realtime"
        await hear(caller, "session.created")
    assert customer.key not in json.dumps(provider.headers)


@pytest.mark.wire("6h.2")
async def test_a_session_ends_with_the_balance(stack: Stack, provider: SpokenTo) -> None:
    """Money for the hold of one response and a little: after it there is none for the next."""
    model = await stack.model(provider.url, max_input_tokens=10_000, max_output_tokens=1_000)
    customer = await stack.customer("0.0352")  # 10,000 x 2.50 + 1,000 x 10 USD a million is 0.035
    async with session(stack, customer.key, f"/openai/v1/realtime?model={model}") as caller:
        await hear(caller, "session.created")
        await ask(caller)
        [*_, told] = await hear(caller, "error")
        assert told["error"]["code"] == "insufficient_balance"
        with pytest.raises(ConnectionClosed) as closed:
            await caller.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "insufficient_balance")
    await books_agree(stack, customer, lambda b: b["spent_nanos"] == CHARGE)


async def test_the_next_response_has_the_place_of_the_last(stack: Stack, provider: SpokenTo) -> None:
    """A key for one request at a time: what has ended is settled before the next is admitted."""
    model, customer = await stack.model(provider.url), await stack.customer(key={"concurrency": 1})
    async with session(stack, customer.key, f"/openai/v1/realtime?model={model}") as caller:
        await hear(caller, "session.created")
        for _ in range(5):
            await ask(caller)
            assert [e["type"] for e in await hear(caller, "response.done")][-1] == "response.done"
    await books_agree(stack, customer, lambda b: b["spent_nanos"] == 5 * CHARGE)


@pytest.mark.parametrize(("policy", "code"), [
    ({"endpoints": ["chat.completions"]}, "endpoint_not_allowed"),
    ({"networks": ["127.0.0.2/32"]}, "network_not_allowed"),
])  # fmt: skip
async def test_a_session_ends_when_its_key_may_not_have_it_any_more(
    stack: Stack, provider: SpokenTo, policy: dict[str, Any], code: str
) -> None:
    """What is held for by then is served; nothing after it is."""
    model, customer = await stack.model(provider.url), await stack.customer()
    async with session(stack, customer.key, f"/openai/v1/realtime?model={model}") as caller:
        await hear(caller, "session.created")
        await stack.ask("PATCH", f"/accounts/{customer.id}/api-keys/{customer.key_id}", policy)
        await ask(caller)
        [*_, told] = await hear(caller, "error")
        assert told["error"]["code"] == code
    await books_agree(stack, customer, lambda b: b["spent_nanos"] == CHARGE)


@pytest.mark.parametrize(("key", "path", "status"), [
    ("junk", "/openai/v1/realtime?model={}", 401),
    ("", "/openai/v1/realtime?model={}", 401),
    (None, "/openai/v1/realtime?model=unknown", 404),
    (None, "/openai/v1/realtime", 400),
])  # fmt: skip
async def test_a_session_that_is_refused(
    stack: Stack, provider: SpokenTo, key: str | None, path: str, status: int
) -> None:
    model, customer = await stack.model(provider.url), await stack.customer()
    with pytest.raises(InvalidStatus) as refused:
        async with session(stack, customer.key if key is None else key, path.format(model)):
            pass
    response = refused.value.response
    assert response.status_code == status
    assert json.loads(response.body or b"")["error"]["code"] == response.headers["x-weir-refusal"]
    assert provider.paths == []
    assert (await stack.settled(customer.id))["spent_nanos"] == 0


async def test_a_provider_that_refuses_the_session_costs_nothing(stack: Stack) -> None:
    async def no(connection: ServerConnection, _request: Any) -> Any:
        return connection.respond(401, "who are you, sk-secret?")

    async with serve(SpokenTo().talk, "127.0.0.1", 0, process_request=no) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        model, customer = await stack.model(url), await stack.customer()
        with pytest.raises(InvalidStatus) as refused:
            async with session(stack, customer.key, f"/openai/v1/realtime?model={model}"):
                pass
    assert refused.value.response.status_code == 502
    assert b"secret" not in (refused.value.response.body or b"")
    assert (await stack.settled(customer.id))["spent_nanos"] == 0


@pytest.mark.wire("5.5")
async def test_leaving_before_the_usage_is_no_cheaper(stack: Stack, provider: SpokenTo) -> None:
    provider.gate.clear()
    model, customer = await stack.model(provider.url), await stack.customer()
    async with session(stack, customer.key, f"/openai/v1/realtime?model={model}") as caller:
        await hear(caller, "session.created")
        await ask(caller)
        await hear(caller, "response.output_text.delta")
    provider.gate.set()
    await books_agree(stack, customer, lambda b: b["spent_nanos"] == CHARGE)
    [event] = [e for e in await stack.events(customer.id, 1) if e["end"] == "settled"]
    assert (event["outcome"], event["estimated"]) == ("client_left", False)


async def test_a_response_without_usage_is_estimated(stack: Stack, provider: SpokenTo) -> None:
    provider.usage = None
    model, customer = await stack.model(provider.url), await stack.customer()
    async with session(stack, customer.key, f"/openai/v1/realtime?model={model}") as caller:
        await hear(caller, "session.created")
        await ask(caller)
        await hear(caller, "response.done")
    await books_agree(stack, customer, lambda b: b["spent_nanos"] > 0)
    [event] = [e for e in await stack.events(customer.id, 1) if e["end"] == "settled"]
    assert event["estimated"]
    assert event["usage"]["output"] == 3


@pytest.mark.wire("1b.12")
async def test_responses_on_a_socket_are_requests_each(stack: Stack, provider: SpokenTo) -> None:
    """Admitted frame by frame, with the model's name and a cap spliced in; what this socket stored may be referred to."""
    model, customer = await stack.model(provider.url, target="gpt-up"), await stack.customer()
    async with session(stack, customer.key, "/openai/v1/responses") as caller:
        await ask(caller, model=model, input="Hello", max_output_tokens=50)
        [*_, done] = await hear(caller, "response.completed")
        await ask(caller, model=model, input="More", previous_response_id=done["response"]["id"], max_output_tokens=50)
        await hear(caller, "response.completed")
        await ask(caller, model=model, input="More", previous_response_id="resp_of_somebody_else")
        [*_, told] = await hear(caller, "error")
        assert told["error"]["param"] == "previous_response_id"
        await ask(caller, model="unknown", input="x")
        [*_, told] = await hear(caller, "error")
        assert told["error"]["code"] == "model_not_found"
        await ask(caller, input="no model")
        [*_, told] = await hear(caller, "error")
        assert told["error"]["code"] == "invalid_request"
    sent = [json.loads(frame) for frame in provider.frames]
    assert [frame["model"] for frame in sent] == ["gpt-up", "gpt-up"]
    await books_agree(stack, customer, lambda b: b["spent_nanos"] == 2 * (11 * 2_500 + 5 * 10_000))
    assert all(event["usage"] == {"input_uncached": 11, "output": 5} for event in await stack.events(customer.id, 2))


async def test_the_books_balance(stack: Stack) -> None:
    assert stack.audit()["agrees"]
