"""A raw socket against the gateway: what could be read in two ways is refused, and no caller can hold it up.

Each answer is checked to be one answer: after a request that is refused for its framing, the connection is closed, so that
nothing behind it can be taken for a second request.
"""

import asyncio
import contextlib
import json
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from bench.provider import Behaviour, ScriptedProvider
from gateway import flow, intake, listener
from gateway.intake import Intake
from gateway.listener import Listener
from gateway.refusals import Code, Refusal
from tests.stack import Customer, Stack, http

CHAT = b"POST /openai/v1/chat/completions HTTP/1.1\r\n"


async def raw(address: str, data: bytes, *, more: bytes = b"") -> bytes:
    """All that comes back until the server closes; the request should ask it to."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        await writer.drain()
        if more:
            writer.write(more)
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


def statuses(answer: bytes) -> list[int]:
    """The status of every response in the bytes."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def body_of(model: str) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}]}).encode()


def request(customer: Customer, body: bytes, *fields: bytes, path: bytes = b"/openai/v1/chat/completions") -> bytes:
    head = [b"POST " + path + b" HTTP/1.1", b"Host: weir", b"Authorization: Bearer " + customer.key.encode()]
    head += [b"Content-Length: %d" % len(body), b"Connection: close", *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


@pytest.mark.wire("6.6", "6.7")
@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\n\r\n{}",
        b"Host: a\r\nHost: b\r\nContent-Length: 2\r\n\r\n{}",
        b"Host: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Host: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"Host: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"Host: a\r\nContent-Length: +2\r\n\r\n{}",
        b"Host: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Host: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Host: a\nContent-Length: 2\n\n{}",
        b"Host: a\r\nX: a\rb\r\nContent-Length: 2\r\n\r\n{}",
        b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    ],
)
async def test_framing_that_two_readers_could_read_differently(stack: Stack, head: bytes) -> None:
    smuggled = b"GET /weir/v1/balance HTTP/1.1\r\nHost: weir\r\n\r\n"
    answer = await raw(stack.gateway, CHAT + b"Connection: close\r\n" + head + smuggled)
    assert statuses(answer) == [400], answer


@pytest.mark.wire("0.4")
@pytest.mark.parametrize(
    "path",
    [
        b"/openai/v1/../v1/chat/completions",
        b"/openai//v1/chat/completions",
        b"/openai/v1/%63hat/completions",
        b"/openai/v1/chat%2Fcompletions",
        b"/openai/v1/chat/completions%00",
        b"/openai/v1/chat/completions/",
        b"/openai/v1/chat\\completions",
        b"/gemini/v1beta/models/../m:generateContent",
        b"/gemini/v1beta/models/m%2F..%2Fm:generateContent/x",
        b"/gemini/v1beta/models/m:generateContent:generateContent",
        b"/anthropic/v1/messages/../messages",
        b"/weir/v1/../v1/balance",
    ],
)
async def test_a_path_is_what_was_sent(stack: Stack, path: bytes) -> None:
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        answer = await raw(stack.gateway, request(customer, body_of(model), path=path))
        assert statuses(answer)[0] in (400, 404, 405), answer
        assert provider.stats.requests == 0


@pytest.mark.wire("0.4")
async def test_an_absolute_target_is_read_as_its_path(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        target = b"http://evil.example/openai/v1/chat/completions"
        answer = await raw(stack.gateway, request(customer, body_of(model), path=target))
        assert statuses(answer) == [200]
        assert "evil" not in json.dumps([seen.headers for seen in provider.seen])


@pytest.mark.wire("6.8")
async def test_a_trailer_is_not_a_header(stack: Stack) -> None:
    """A key, or a connection's options, that come after the body are nobody's."""
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        body = body_of(model)
        chunked = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
        key = b"Authorization: Bearer " + customer.key.encode() + b"\r\n"
        head = b"Host: weir\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
        late = await raw(stack.gateway, CHAT + head + b"\r\n" + chunked + key + b"\r\n")
        assert statuses(late) == [401]
        fine = await raw(stack.gateway, CHAT + head + key + b"\r\n" + chunked + b"OpenAI-Beta: late\r\n\r\n")
        assert statuses(fine) == [200]
        [seen] = provider.seen
        assert "late" not in json.dumps(seen.headers)


@pytest.mark.wire("6.1", "6.2", "1a.2", "5.6")
async def test_only_listed_headers_go_on(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        fields = (
            b"Connection: x-stainless-drop",
            b"X-Stainless-Drop: hop", b"X-Stainless-Lang: python", b"User-Agent: sdk/1", b"OpenAI-Beta: b", b"Accept: a/b",
            b"Cookie: c=1", b"OpenAI-Organization: org-mine", b"OpenAI-Project: proj_mine", b"X-Api-Key: theirs",
            b"X-Goog-Api-Key: theirs", b"Forwarded: for=9.9.9.9", b"X-Forwarded-For: 9.9.9.9", b"X-Real-IP: 9.9.9.9",
            b"Via: 1.1 x", b"TE: trailers", b"Proxy-Authorization: p", b"Accept-Encoding: gzip", b"X-Other: other",
        )  # fmt: skip
        answer = await raw(stack.gateway, request(customer, body_of(model), *fields))
        assert statuses(answer) == [200]
        [seen] = provider.seen
        sent = {name: value for name, value in seen.headers if name not in ("host", "content-length", "connection")}
        assert sent == {
            "x-stainless-lang": "python",
            "user-agent": "sdk/1",
            "openai-beta": "b",
            "accept": "a/b",
            "content-type": "application/json",
            "authorization": "Bearer sk-upstream",
            "accept-encoding": "identity",
        }


@pytest.mark.wire("6.1", "6.3", "6.12")
async def test_what_the_provider_says_of_its_account_stays_here(stack: Stack) -> None:
    said = {
        "set-cookie": "__cf_bm=1", "openai-organization": "org-up", "openai-project": "proj-up", "server": "cloudflare",
        "anthropic-organization-id": "o", "anthropic-workspace-id": "w", "cf-ray": "1", "alt-svc": "h3", "location": "x",
        "strict-transport-security": "max-age=1", "x-ratelimit-remaining-requests": "7", "via": "1.1 up",
        "anthropic-ratelimit-tokens-limit": "7", "x-weir-refusal": "forged", "x-hop": "1", "proxy-authenticate": "Basic",
        "openai-processing-ms": "12", "openai-version": "2020-10-01", "x-request-id": "req_up", "x-should-retry": "false",
    }  # fmt: skip
    async with ScriptedProvider(Behaviour(headers=said)) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        async with http() as client:
            key = {"authorization": f"Bearer {customer.key}"}
            answer = await client.post(f"{stack.base_url}/chat/completions", content=body_of(model), headers=key)
    passed = {name for name in answer.headers if name in said}
    assert passed == {"openai-processing-ms", "openai-version", "x-request-id", "x-should-retry", "x-hop"}


@pytest.mark.wire("6.4")
@pytest.mark.parametrize("status", [301, 302, 307, 401, 402, 403])
async def test_the_operators_troubles_are_not_the_callers(stack: Stack, status: int) -> None:
    async with ScriptedProvider(
        Behaviour(status=status, headers={"location": "https://elsewhere.example/"})
    ) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        async with http() as client:
            key = {"authorization": f"Bearer {customer.key}"}
            answer = await client.post(f"{stack.base_url}/chat/completions", content=body_of(model), headers=key)
    assert (answer.status_code, answer.headers["x-weir-refusal"]) == (502, "upstream_error")
    assert "location" not in answer.headers
    balance = await stack.settled(customer.id)
    assert balance["spent_nanos"] == 0


@pytest.mark.wire("6.11")
@pytest.mark.parametrize("coding", [b"gzip", b"identity, gzip", b"br"])
async def test_a_coded_body_is_not_read(stack: Stack, coding: bytes) -> None:
    customer = await stack.customer()
    answer = await raw(stack.gateway, request(customer, b"x", b"Content-Encoding: " + coding))
    assert statuses(answer) == [415]


@asynccontextmanager
async def listening(monkeypatch: pytest.MonkeyPatch, **bounds: Any) -> AsyncIterator[str]:
    """A listener of this process with bounds that a test can wait for, before an application that says hello."""
    for name, value in bounds.items():
        monkeypatch.setattr(listener, name, value)

    async def hello(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi"})

    config = uvicorn.Config(hello, http=Listener, ws="none", lifespan="off", log_config=None, port=0, host="127.0.0.1")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest.mark.wire("6.9")
async def test_a_head_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, or a byte at a time; on a fresh connection, or behind a request that was fine."""
    fine = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    async with listening(monkeypatch, HEAD_WITHIN_S=0.3) as address:
        assert statuses(await raw(address, b"")) == [408]
        assert statuses(await raw(address, b"GET / HTTP/1.1\r\nHo")) == [408]
        assert statuses(await raw(address, fine, more=b"GET / HT")) == [200, 408]
        host, port = address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        drips = 0
        while not reader.at_eof() and drips < 100:
            writer.write(b"X")
            drips += 1
            with contextlib.suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(reader.read(1000), 0.05)
        writer.transport.abort()
        assert drips < 30, "dripping kept the connection"


@pytest.mark.wire("6.9")
async def test_a_head_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    async with listening(monkeypatch) as address:
        assert statuses(await raw(address, start + b"X: " + b"x" * 30_000 + b"\r\n\r\n")) == [200]
        endless = await raw(address, start + b"X: " + b"x" * 60_000, more=b"x" * 60_000)
        assert statuses(endless) == [431]
        many = b"".join(b"X-%d: 1\r\n" % number for number in range(250))
        assert statuses(await raw(address, start + many + b"\r\n")) == [400]
        chunked = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        assert 200 not in statuses(await raw(address, chunked + many + b"\r\n"))


async def test_a_refusal_reaches_a_caller_who_is_still_sending(stack: Stack) -> None:
    """To close with bytes unread would reset the connection, and take the answer from a caller who has not read it yet."""
    fields = b"Host: weir\r\nConnection: close\r\nAuthorization: Bearer nobody\r\nContent-Length: 3000000\r\n\r\n"

    def ask() -> bytes:
        host, port = stack.gateway.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as caller:
            caller.sendall(CHAT + fields)
            assert select.select([caller], [], [], 20)[0]
            for _ in range(30):
                caller.sendall(b"x" * 100_000)
            return b"".join(iter(lambda: caller.recv(65_536), b""))

    assert statuses(await asyncio.to_thread(ask)) == [401]


async def test_a_caller_who_sends_on_and_on_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LINGER_S", 0.3)
    async with listening(monkeypatch) as address:
        host, port = address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"no request\r\n\r\n")
        assert statuses(await asyncio.wait_for(reader.read(), 20)) == [400]
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 400:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
                sent += 1
        writer.transport.abort()
        assert 5 < sent < 400, "the connection is kept for a while, and not for ever"


@pytest.mark.wire("6.9")
async def test_a_body_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "BODY_WITHIN_S", 0.1)
    reading = Intake()

    async def drip() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(Refusal) as refused:
        await reading.read(drip)
    assert refused.value.code is Code.REQUEST_TIMEOUT
    assert reading.buffered == 0


@pytest.mark.wire("6.9")
async def test_all_bodies_together_have_a_bound() -> None:
    reading = Intake(most=100)

    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    parts = iter([{"type": "http.request", "body": b"x" * 80, "more_body": True}])

    async def first() -> dict[str, Any]:
        part = next(parts, None)
        return part if part is not None else await never()

    holding = asyncio.create_task(reading.read(first))
    while reading.buffered < 80:
        await asyncio.sleep(0)

    async def second() -> dict[str, Any]:
        return {"type": "http.request", "body": b"y" * 30, "more_body": False}

    with pytest.raises(Refusal) as refused:
        await reading.read(second)
    assert refused.value.code is Code.TEMPORARILY_UNAVAILABLE
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert reading.buffered == 0
