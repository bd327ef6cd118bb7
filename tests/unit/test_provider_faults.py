"""The scripted provider misbehaving as it is told."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx2
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from bench.provider import DEFAULT_TEXT, Behaviour, Bill, ScriptedProvider

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two"}]
STREAM = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"one two"}]}'


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as running:
        yield running


@pytest.fixture
async def client(provider: ScriptedProvider) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="sk-up", max_retries=0) as ready:
        yield ready


class Caller:
    """A connection with nothing in between, to see the bytes and how they end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self, body: bytes, path: str = "/v1/chat/completions") -> None:
        head = f"POST {path} HTTP/1.1\r\nhost: p\r\nauthorization: Bearer k\r\ncontent-length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@pytest.fixture
async def caller(provider: ScriptedProvider) -> AsyncIterator[Caller]:
    host, port = provider.url.removeprefix("http://").split(":")
    ready = Caller(*await asyncio.open_connection(host, int(port)))
    yield ready
    ready.writer.transport.abort()


async def stream(client: AsyncOpenAI) -> AsyncIterator[str]:
    async with await client.chat.completions.create(model="m", messages=MESSAGES, stream=True) as chunks:
        async for chunk in chunks:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


async def test_status_with_the_dialects_error(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    provider.queue(Behaviour(status=429, headers={"retry-after": "7"}))
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["content-type"] == "application/json"
    assert provider.bills == []
    assert (provider.seen[0].status, provider.seen[0].outcome) == (429, "answered")


async def test_raw_bytes_are_sent_as_they_are(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    frame = b': comment\r\n\r\ndata:{"id":"x","choices":[{"index":0,"delta":{"content":"Fo\xc3\xbcr"}}]}\n\n'
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    provider.queue(
        Behaviour(body=frame + b"data: [DONE]\n\n", content_type="text/event-stream", chunks=40, pace_s=0, usage=usage)
    )
    assert [text async for text in stream(client)] == ["Foür"]
    assert provider.bills == [Bill(1, "m", 3, 4)]
    provider.queue(Behaviour(status=502, body=b"<html>", content_type="text/html"))
    async with httpx2.AsyncClient(headers={"x-api-key": "k"}) as http:
        answer = await http.post(f"{provider.url}/v1/messages", json={"stream": True})
    assert (answer.status_code, answer.content) == (502, b"<html>")
    assert answer.headers["content-type"] == "text/html"
    assert len(provider.bills) == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_marks_the_end_of_a_body_in_each_way(provider: ScriptedProvider, framing: str) -> None:
    provider.script(Behaviour(framing=framing))  # type: ignore[arg-type]
    async with httpx2.AsyncClient(headers={"x-api-key": "k"}) as http:
        answer = await http.post(f"{provider.url}/v1/messages", json={})
        assert answer.json()["content"][0]["text"] == DEFAULT_TEXT
        assert ("content-length" in answer.headers) == (framing == "length")
        assert (answer.headers.get("connection") == "close") == (framing == "close")


async def test_wire_bytes_with_head_and_all(provider: ScriptedProvider, caller: Caller) -> None:
    wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nshort"
    provider.queue(Behaviour(wire=wire, cut_after_chunks=0))
    caller.ask(STREAM)
    assert await caller.reader.read() == wire
    assert provider.bills == []


async def test_gate_withholds_every_answer_until_released(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    provider.script(Behaviour(gate=True))
    asked = [asyncio.create_task(client.chat.completions.create(model="m", messages=MESSAGES)) for _ in range(20)]
    await provider.wait_for(lambda p: p.stats.held == 20)
    assert not any(task.done() for task in asked)
    assert provider.bills == []
    assert provider.release(1) == 1
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    assert sum(task.done() for task in asked) == 1
    assert provider.release() == 19
    await asyncio.gather(*asked)
    assert len(provider.bills) == 20
    assert provider.stats.held == 0


async def test_stalls_in_the_middle_then_goes_on(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    provider.queue(Behaviour(stall_after_chunks=2))
    chunks = stream(client)
    assert [await anext(chunks), await anext(chunks)] == ["Hello ", "from "]
    await provider.wait_for(lambda p: p.stats.held == 1)
    assert provider.stats.open_streams == 1
    provider.release()
    assert "".join([text async for text in chunks]) == "the scripted provider."
    assert provider.stats.open_streams == 0
    assert provider.seen[0].chunks_sent == 5


async def test_notices_the_client_leaving_and_bills_what_was_sent(provider: ScriptedProvider, caller: Caller) -> None:
    provider.queue(Behaviour(stall_after_chunks=3))
    caller.ask(STREAM)
    await caller.reader.readuntil(b"the ")
    await provider.wait_for(lambda p: p.stats.held == 1)
    await caller.leave()
    await provider.wait_for(lambda p: p.seen[0].outcome == "client_left" and not p.stats.open_connections)
    assert provider.bills == [Bill(1, "m", 2, 3)]
    assert (provider.stats.held, provider.stats.open_streams) == (0, 0)
    assert provider.release() == 0


async def test_a_stall_past_the_end_comes_just_before_the_usage(provider: ScriptedProvider, caller: Caller) -> None:
    provider.queue(Behaviour(stall_after_chunks=99))
    caller.ask(STREAM)
    sent = await caller.reader.readuntil(b"provider.")
    await provider.wait_for(lambda p: p.stats.held == 1)
    assert b'finish_reason":"stop' not in sent
    provider.release()
    assert b"[DONE]" in await caller.reader.readuntil(b"0\r\n\r\n")


@pytest.mark.parametrize("reset", [False, True])
async def test_cuts_a_stream_without_a_terminator(provider: ScriptedProvider, caller: Caller, reset: bool) -> None:
    provider.queue(Behaviour(cut_after_chunks=2, reset=reset))
    caller.ask(STREAM)
    await caller.reader.readuntil(b"from ")
    if reset:
        with pytest.raises(ConnectionResetError):
            await caller.reader.read()
    else:
        assert b"[DONE]" not in await caller.reader.read()
    assert provider.seen[0].outcome == "cut"
    assert provider.bills == [Bill(1, "m", 2, 2)]


@pytest.mark.parametrize("reset", [False, True])
async def test_cuts_before_the_answer(provider: ScriptedProvider, caller: Caller, reset: bool) -> None:
    provider.queue(Behaviour(cut_before_answer=True, reset=reset))
    caller.ask(STREAM)
    if reset:
        with pytest.raises(ConnectionResetError):
            await caller.reader.read()
    else:
        assert await caller.reader.read() == b""
    assert provider.bills == []


async def test_cuts_an_answer_that_is_not_streamed(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    provider.script(Behaviour(cut_after_chunks=1))
    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(model="m", messages=MESSAGES)
    assert provider.bills == [Bill(1, "m", 2, 5)]


async def test_sends_the_dialects_error_in_the_middle(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    provider.queue(Behaviour(error_after_chunks=1))
    chunks = stream(client)
    assert await anext(chunks) == "Hello "
    with pytest.raises(openai.APIError, match="had an error"):
        await anext(chunks)
    assert provider.seen[0].outcome == "errored"
    assert provider.bills == [Bill(1, "m", 2, 1)]


async def test_paces_chunks_and_delays_the_first_byte(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    loop = asyncio.get_running_loop()
    provider.queue(Behaviour(first_byte_delay_s=0.05, pace_s=0.01))
    began = loop.time()
    assert "".join([text async for text in stream(client)]) == DEFAULT_TEXT
    assert loop.time() - began >= 0.09


async def test_answers_requests_that_are_sent_ahead_in_order(provider: ScriptedProvider, caller: Caller) -> None:
    provider.queue(Behaviour(gate=True, text="first"), Behaviour(text="second"))
    for _ in range(3):
        caller.ask(b'{"model":"m"}')
    await provider.wait_for(lambda p: p.stats.held == 1)
    provider.release()
    texts = []
    for _ in range(3):
        head = await caller.reader.readuntil(b"\r\n\r\n")
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        answer = json.loads(await caller.reader.readexactly(length))
        texts.append(answer["choices"][0]["message"]["content"])
    assert texts == ["first", "second", DEFAULT_TEXT]


async def test_a_reader_that_is_slow_holds_it_back(provider: ScriptedProvider, caller: Caller) -> None:
    text = "x" * 100_000
    provider.queue(Behaviour(text=f"{text} " * 300))
    caller.ask(STREAM)
    got = len(await caller.reader.read(1 << 20))
    # Buffers of the kernel and of this reader hold ten megabytes at most, and there are thirty to send.
    assert provider.stats.by_outcome == {}
    tail = b""
    while not tail.endswith(b"0\r\n\r\n"):
        data = await caller.reader.read(1 << 20)
        got += len(data)
        tail = (tail + data)[-5:]
    assert got > 30_000_000
    assert provider.stats.by_outcome == {"answered": 1}


async def test_what_is_not_http_gets_a_400(caller: Caller) -> None:
    caller.writer.write(b"nonsense\r\n\r\n")
    assert (await caller.reader.read()).startswith(b"HTTP/1.1 400 ")


async def test_reset_cuts_what_is_in_flight(provider: ScriptedProvider, caller: Caller) -> None:
    provider.script(Behaviour(stall_after_chunks=1))
    caller.ask(STREAM)
    await provider.wait_for(lambda p: p.stats.held == 1)
    provider.reset()
    await provider.wait_for(lambda p: p.stats.open_connections == 0)
    assert (provider.seen, provider.bills, provider.stats.held) == ([], [], 0)
    assert provider.stats.open_streams == 0


def certificate(folder: Path) -> Path:
    """A key and a certificate of its own for 127.0.0.1."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(address, critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "provider.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + private)
    return path


async def test_cuts_tls_too(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    trust = ssl.create_default_context(cafile=pem)
    async with ScriptedProvider(tls=context) as p, httpx2.AsyncClient(verify=trust) as http:
        ask = http.build_request("POST", f"{p.url}/v1/messages", headers={"x-api-key": "k"}, json={"stream": True})
        assert (await http.send(ask)).is_success
        p.queue(Behaviour(cut_after_chunks=2), Behaviour(cut_after_chunks=2, reset=True))
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.send(ask)
        with pytest.raises(httpx2.ReadError):
            await http.send(ask)
