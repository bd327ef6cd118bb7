"""The scripted provider as a process of its own, and its control plane."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from openai import AsyncOpenAI, AuthenticationError, InternalServerError
from openai.types.chat import ChatCompletionMessageParam

from bench.provider import Behaviour, Bill, ProviderControl

ROOT = Path(__file__).resolve().parents[2]
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two"}]


@asynccontextmanager
async def running(*options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.provider", *options), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(await process.stdout.readline())["url"]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def connected(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-up", max_retries=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stops_when_told(number: signal.Signals) -> None:
    async with running("--port", "0", "--text", "a b c") as (process, url), connected(url) as client:
        answer = await client.chat.completions.create(model="m", messages=MESSAGES)
        assert answer.choices[0].message.content == "a b c"
        process.send_signal(number)
        assert await process.wait() == 0


async def test_is_driven_from_outside() -> None:
    async with running("--record-bodies") as (_, url), ProviderControl(url) as provider, connected(url) as client:
        await provider.script(Behaviour(text="scripted", gate=True, usage={"prompt_tokens": 9}), model="m")
        await provider.queue(Behaviour(status=500))
        with pytest.raises(InternalServerError):
            await client.chat.completions.create(model="m", messages=MESSAGES)
        asked = asyncio.create_task(client.chat.completions.create(model="m", messages=MESSAGES))
        stats = await provider.wait_for(lambda stats: stats.held == 1)
        assert (stats.requests, stats.billed_requests) == (2, 0)
        assert await provider.release() == 1
        assert (await asked).choices[0].message.content == "scripted"
        assert await provider.bills() == [Bill(2, "m", 9, 0)]
        seen = await provider.seen()
        assert [(one.status, one.outcome) for one in seen] == [(500, "answered"), (200, "answered")]
        assert seen[1].body is not None
        assert json.loads(seen[1].body)["messages"] == MESSAGES
        await provider.accept([])
        with pytest.raises(AuthenticationError):
            await client.chat.completions.create(model="m", messages=MESSAGES)
        await provider.reset()
        assert (await provider.stats()).requests == 0


async def test_says_what_is_wrong_with_a_script() -> None:
    async with running() as (_, url), ProviderControl(url) as provider:
        with pytest.raises(ValueError, match="status"):
            await provider.script(Behaviour(status="many"))  # type: ignore[arg-type]
        with pytest.raises(TimeoutError, match="requests=0"):
            await provider.wait_for(lambda stats: stats.requests > 0, timeout_s=0.05)


async def test_stops_with_streams_open() -> None:
    async with running("--chunks", "1000", "--pace", "10") as (process, url), connected(url) as client:
        chunks = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        await anext(chunks)
        process.terminate()
        assert await process.wait() == 0
        await chunks.close()
