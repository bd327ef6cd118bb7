"""The scripted provider as the OpenAI SDK sees it, and its books."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from bench.provider import DEFAULT_TEXT, Behaviour, Bill, ScriptedProvider, prompt_tokens

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "one two three"}]},
]
PROMPT_WORDS = 5
ANSWER_WORDS = 5


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider(record_bodies=True) as running:
        yield running


@pytest.fixture
async def client(provider: ScriptedProvider) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{provider.url}/openai/v1", api_key="sk-up", max_retries=0) as ready:
        yield ready


@pytest.fixture
async def http(provider: ScriptedProvider) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=provider.url, headers={"authorization": "Bearer sk-up"}) as ready:
        yield ready


async def say(client: AsyncOpenAI, model: str = "m", **options: Any) -> str:
    answer = await client.chat.completions.create(model=model, messages=MESSAGES, **options)
    return str(answer.choices[0].message.content)


async def test_answers_a_chat_completion(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="gpt-4.1", messages=MESSAGES)
    assert answer.choices[0].message.content == DEFAULT_TEXT
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT_WORDS, ANSWER_WORDS)
    assert answer.usage.total_tokens == PROMPT_WORDS + ANSWER_WORDS
    assert provider.bills == [Bill(1, "gpt-4.1", PROMPT_WORDS, ANSWER_WORDS)]


async def test_answers_the_synchronous_client(provider: ScriptedProvider) -> None:
    def call() -> tuple[str | None, str]:
        with OpenAI(base_url=f"{provider.url}/v1", api_key="sk-up") as client:
            whole = client.chat.completions.create(model="m", messages=MESSAGES)
            stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            return whole.choices[0].message.content, "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert await asyncio.to_thread(call) == (DEFAULT_TEXT, DEFAULT_TEXT)


@pytest.mark.parametrize("asked", [False, True])
async def test_streams_with_usage_only_where_asked_for(
    provider: ScriptedProvider, client: AsyncOpenAI, http: httpx2.AsyncClient, asked: bool
) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True, **options)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == DEFAULT_TEXT
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(usages) == asked
    if asked:
        assert chunks[-1].choices == []
        assert usages[0].completion_tokens == ANSWER_WORDS

    body = {"model": "m", "messages": MESSAGES, "stream": True, **options}
    raw = (await http.post("/v1/chat/completions", json=body)).text.strip().split("\n\n")
    assert raw[-1] == "data: [DONE]"
    frames = [json.loads(line.removeprefix("data: ")) for line in raw[:-1]]
    assert [frame.get("usage", "absent") is None for frame in frames if frame["choices"]] == [asked] * 7
    assert provider.bills[0][1:] == provider.bills[1][1:] == ("m", PROMPT_WORDS, ANSWER_WORDS)


async def test_enforces_the_output_cap(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", messages=MESSAGES, max_completion_tokens=3, n=2)
    assert [choice.message.content for choice in answer.choices] == ["Hello from the"] * 2
    assert answer.choices[0].finish_reason == "length"
    provider.queue(Behaviour(ignore_cap=True))
    assert await say(client, max_tokens=3) == DEFAULT_TEXT
    assert [bill.completion_tokens for bill in provider.bills] == [6, 5]


async def test_answers_responses(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(model="m", input="one two three", instructions="be brief")
    assert answer.output_text == DEFAULT_TEXT
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, ANSWER_WORDS)
    events = [event async for event in await client.responses.create(model="m", input="one", stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == DEFAULT_TEXT
    assert last.response.usage is not None
    assert last.response.usage.total_tokens == 1 + ANSWER_WORDS


async def test_answers_the_other_openai_endpoints(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    vectors = await client.embeddings.create(model="e", input=["one two", "three"])
    assert [one.embedding for one in vectors.data] == [[0.25, -0.5, 1.0]] * 2
    assert vectors.usage.prompt_tokens == 3
    completion = await client.completions.create(model="c", prompt="one two")
    assert completion.choices[0].text == DEFAULT_TEXT
    assert (await client.models.list()).data[0].id == "gpt-4.1"
    assert [bill.model for bill in provider.bills] == ["e", "c"]


async def test_speaks_anthropic(provider: ScriptedProvider, http: httpx2.AsyncClient) -> None:
    body = {"model": "claude", "max_tokens": 9, "system": "be brief", "messages": MESSAGES[1:]}
    whole = (await http.post("/anthropic/v1/messages", json=body)).json()
    assert whole["content"][0]["text"] == DEFAULT_TEXT
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (5, ANSWER_WORDS)
    events = sse((await http.post("/v1/messages", json={**body, "stream": True})).text)
    assert [event["type"] for event in events] == [
        *("message_start", "ping", "content_block_start"),
        *["content_block_delta"] * ANSWER_WORDS,
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert events[0]["message"]["usage"]["output_tokens"] == 1
    assert events[-2]["usage"]["output_tokens"] == ANSWER_WORDS
    count = await http.post("/v1/messages/count_tokens", json=body)
    assert count.json() == {"input_tokens": 5}
    assert len(provider.bills) == 2


async def test_speaks_gemini(provider: ScriptedProvider, http: httpx2.AsyncClient) -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "one two"}]}]}
    path = "/gemini/v1beta/models/gemini-x"
    whole = (await http.post(f"{path}:generateContent", json=body)).json()
    assert whole["candidates"][0]["content"]["parts"] == [{"text": DEFAULT_TEXT}]
    events = sse((await http.post(f"{path}:streamGenerateContent?alt=sse", json=body)).text)
    assert [event["usageMetadata"]["candidatesTokenCount"] for event in events] == [1, 2, 3, 4, 5, 5]
    assert events[-1]["candidates"][0]["finishReason"] == "STOP"
    array = (await http.post(f"{path}:streamGenerateContent", json=body)).json()
    assert [chunk["usageMetadata"] for chunk in array] == [event["usageMetadata"] for event in events]
    count = await http.post("/v1/models/gemini-x:countTokens", json=body)
    assert count.json() == {"totalTokens": 2}
    assert [bill[1:] for bill in provider.bills] == [("gemini-x", 2, ANSWER_WORDS)] * 3


def sse(text: str) -> list[Any]:
    return [json.loads(event.split("data: ", 1)[1]) for event in text.strip().split("\n\n")]


def test_counts_the_words_of_any_prompt() -> None:
    assert prompt_tokens({"system": [{"type": "text", "text": "a b"}], "messages": MESSAGES}) == 7
    assert prompt_tokens({"systemInstruction": {"parts": [{"text": "a"}]}, "contents": "b c"}) == 3
    assert prompt_tokens({"input": [1, 2, 3], "model": "not counted"}) == 3
    assert prompt_tokens({}) == 0


async def test_refuses_without_a_credential_in_the_dialect(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    async with httpx2.AsyncClient(base_url=provider.url) as stranger:
        refused = await stranger.post("/v1/chat/completions", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        refused = await stranger.post("/v1/messages", json={})
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
        refused = await stranger.post("/v1/models/m:generateContent", json={})
        assert (refused.status_code, refused.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
        answered = await stranger.post("/v1/messages", json={}, headers={"x-api-key": "sk-up"})
        assert answered.status_code == 200
        assert (await stranger.get("/v1/models", headers={"x-goog-api-key": "g"})).json()["models"]
    provider.accept(["another"])
    with pytest.raises(openai.AuthenticationError):
        await say(client)
    assert provider.stats.by_outcome == {"refused": 4, "answered": 2}


async def test_records_what_it_saw(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    await say(client, "gpt-4.1", extra_headers={"x-mark": "here"}, extra_query={"a": "b"})
    seen = provider.seen[0]
    assert (seen.method, seen.target) == ("POST", "/openai/v1/chat/completions?a=b")
    assert (seen.model, seen.credential, seen.header("x-mark")) == ("gpt-4.1", "sk-up", "here")
    assert seen.body is not None
    assert json.loads(seen.body)["messages"] == MESSAGES
    assert (seen.status, seen.outcome, seen.streamed) == (200, "answered", False)
    assert provider.stats.by_model == {"gpt-4.1": 1}
    assert provider.stats.open_connections == 1


async def test_reports_scripted_usage_or_none(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    usage = {"prompt_tokens": 120, "completion_tokens": 45, "total_tokens": 165, "cost_in_usd_ticks": 7}
    provider.queue(Behaviour(usage=usage), Behaviour(omit_usage=True))
    answer = await client.chat.completions.create(model="m", messages=MESSAGES)
    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_unset=True) == usage
    assert provider.bills == [Bill(1, "m", 120, 45)]
    answer = await client.chat.completions.create(model="m", messages=MESSAGES)
    assert answer.usage is None


async def test_has_as_many_chunks_as_it_is_told(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    async def chunks() -> list[str]:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        return [text async for chunk in stream if (text := chunk.choices[0].delta.content)]

    provider.queue(Behaviour(text="a b  c\nd ", chunks=2), Behaviour(text="a b", chunks=5))
    assert await chunks() == ["a b  ", "c\nd "]
    assert await chunks() == ["a ", "b ", "a ", "b ", "a"]
    assert [bill.completion_tokens for bill in provider.bills] == [4, 5]


async def test_chooses_the_behaviour(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    provider.script(Behaviour(text="anyone"))
    provider.script(Behaviour(text="credential"), credential="sk-up")
    provider.script(Behaviour(text="model"), model="m1")
    provider.script(Behaviour(text="both"), model="m2", credential="sk-up")
    provider.script(Behaviour(text="twice", times=2), model="m1")
    provider.queue(Behaviour(text="queued"))
    await client.models.list()  # a free endpoint takes nothing from the queue
    assert await say(client, "m1") == "queued"
    assert [await say(client, "m1") for _ in range(3)] == ["twice", "twice", "model"]
    assert await say(client, "m2") == "both"
    assert await say(client, "m3") == "credential"
    assert await say(client.with_options(api_key="sk-other"), "m3") == "anyone"
    provider.reset()
    assert await say(client, "m1") == DEFAULT_TEXT
    assert [seen.number for seen in provider.seen] == [1]


async def test_waits_for_what_happens_and_says_what_did_not(provider: ScriptedProvider, client: AsyncOpenAI) -> None:
    enough: Callable[[ScriptedProvider], bool] = lambda p: p.stats.requests == 2  # noqa: E731
    waiting = asyncio.create_task(provider.wait_for(enough))
    await say(client)
    assert not waiting.done()
    await say(client)
    await waiting
    with pytest.raises(TimeoutError, match="requests=2"):
        await provider.wait_for(lambda p: p.stats.requests == 3, timeout_s=0.01)
