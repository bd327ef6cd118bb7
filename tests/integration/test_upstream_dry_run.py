"""`POST /upstreams/{name}/test` and `weir upstream test`: what an operator sees before a customer does."""

import asyncio
import subprocess
from typing import Any

import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.stack import WEIR, Stack

PROVIDERS = ("openai", "anthropic", "gemini", "xai", "openai_compatible")


async def upstream(stack: Stack, provider: ScriptedProvider, kind: str = "openai", **more: Any) -> str:
    base = provider.url + ("" if kind in ("anthropic", "gemini") else "/v1")
    model = await stack.model(provider.url, target="there", upstream={"provider": kind, "base_url": base}, **more)
    return str((await stack.ask("GET", f"/models/{model}"))["upstreams"][0]["upstream"])


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_the_smallest_real_request(stack: Stack, kind: str) -> None:
    said = {"x-ratelimit-remaining-tokens": "123", "anthropic-ratelimit-tokens-remaining": "9", "x-other": "no"}
    async with ScriptedProvider(Behaviour(headers=said)) as provider:
        found = await stack.ask("POST", f"/upstreams/{await upstream(stack, provider, kind)}/test")
        assert (found["ok"], found["status"], found["asked_as"], found["tls"]) == (True, 200, "there", None)
        assert found["latency_ms"] >= 0
        assert found["quota"] == {name: value for name, value in said.items() if name != "x-other"}
        assert found["usage"]
        assert found["price"]["output_per_million_usd"] == "10.00"
        assert "Hello" not in str(found), "what the provider wrote is nobody's"
        [seen] = provider.seen
        assert (seen.credential, seen.model) == ("sk-upstream", "there")


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_what_a_provider_says_no_with(stack: Stack, status: int) -> None:
    async with ScriptedProvider(Behaviour(status=status)) as provider:
        found = await stack.ask("POST", f"/upstreams/{await upstream(stack, provider)}/test")
    assert (found["ok"], found["status"]) == (False, status)


async def test_nobody_there(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        name = await upstream(stack, provider)
    found = await stack.ask("POST", f"/upstreams/{name}/test")
    assert found["ok"] is False
    assert "no connection" in found["problem"]


async def test_the_verb(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        name = await upstream(stack, provider)

        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*WEIR, "upstream", "test", name],
                env=stack.env,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )

        good = await asyncio.to_thread(run)
        assert good.returncode == 0, good.stderr
        assert "latency" in good.stdout
        provider.script(Behaviour(status=500))
        bad = await asyncio.to_thread(run)
    assert bad.returncode == 1
    assert "500" in bad.stdout
