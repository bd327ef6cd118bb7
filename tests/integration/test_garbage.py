"""A request is freed when it ends. What Python's collector has to free, it frees for thousands at once, and all wait."""

import json
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import psutil
import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.integration import garbage
from tests.stack import Stack, eventually, http
from weir.bundled import free_port

REQUESTS = 50
LARGE = 24_000_000


class Gateway:
    """One by itself, beside the stores of a running Weir."""

    def __init__(self, stack: Stack) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        env = {
            **stack.env,
            "WEIR_REDIS_URL": stack.stores["redis"],
            "WEIR_MASTER_KEY": stack.master_key,
            "WEIR_GATEWAY_ADDR": self.address,
            "WEIR_OPS_ADDR": "127.0.0.1:0",
        }
        command = [sys.executable, garbage.__file__]
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def left(self) -> dict[str, int]:
        """By type, what only the collector frees since it was asked last."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))


@pytest.fixture
def gateway(stack: Stack) -> Iterator[Gateway]:
    made = Gateway(stack)
    yield made
    made.process.terminate()
    made.process.communicate(timeout=60)


async def ready(client: httpx2.AsyncClient) -> None:
    async def status() -> int:
        try:
            return (await client.get("/readyz")).status_code
        except httpx2.TransportError:
            return 0

    await eventually(status, lambda status: status == 200)


STATUS = {"refused": 402, "no_key": 401, "unreachable": 503, "provider_says_no": 400}


@pytest.mark.parametrize("kind", ["whole", "streamed", *STATUS])
async def test_nothing_of_a_request_is_left(stack: Stack, gateway: Gateway, kind: str) -> None:
    behaviour = Behaviour(status=400) if kind == "provider_says_no" else Behaviour()
    async with ScriptedProvider(behaviour) as provider, http(base_url=f"http://{gateway.address}") as client:
        model = await stack.model(f"http://127.0.0.1:{free_port()}" if kind == "unreachable" else provider.url)
        customer = await stack.customer("0" if kind == "refused" else "10")
        headers = {"authorization": f"Bearer {'weir_nobody' if kind == 'no_key' else customer.key}"}
        body = {"model": model, "stream": kind == "streamed", "messages": [{"role": "user", "content": "Hello"}]}

        async def ask() -> int:
            return (await client.post("/openai/v1/chat/completions", json=body, headers=headers)).status_code

        await ready(client)
        for _ in range(3):  # the first ones leave what is made once
            await ask()
            gateway.left()
        assert {await ask() for _ in range(REQUESTS)} == {STATUS.get(kind, 200)}
        left = gateway.left()
    assert sum(left.values()) < REQUESTS, left


async def test_what_was_asked_is_not_kept_while_it_is_answered(stack: Stack, gateway: Gateway) -> None:
    """A stream may last for minutes, and a prompt be 32 MB."""
    behaviour = Behaviour(text="word " * 40, chunks=40, stall_after_chunks=10)
    async with ScriptedProvider(behaviour) as provider, http(base_url=f"http://{gateway.address}") as client:
        model, customer = await stack.model(provider.url), await stack.customer("1000")
        await ready(client)
        worker = psutil.Process(gateway.process.pid)
        seen: list[int] = []
        for size in (100, LARGE, LARGE, LARGE, LARGE, 100, 100):  # the first leaves what is made once
            body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "x" * size}]}
            headers = {"authorization": f"Bearer {customer.key}"}
            async with client.stream("POST", "/openai/v1/chat/completions", json=body, headers=headers) as answer:
                assert answer.status_code == 200
                await provider.wait_for(lambda p: p.stats.held == 1)
                gateway.left()
                seen.append(worker.memory_info().rss)
                provider.release()
                assert b"[DONE]" in await answer.aread()
    assert max(seen) - seen[0] < LARGE / 2
