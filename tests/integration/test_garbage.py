"""A request is freed when it ends. What Python's collector has to free, it frees for thousands at once, and all wait."""

import json
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.integration import garbage
from tests.stack import Stack, eventually, http
from weir.bundled import free_port

REQUESTS = 50


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


STATUS = {"refused": 402, "no_key": 401, "unreachable": 503, "provider_says_no": 400}


@pytest.mark.parametrize("kind", ["whole", "streamed", *STATUS])
async def test_nothing_of_a_request_is_left(stack: Stack, gateway: Gateway, kind: str) -> None:
    behaviour = Behaviour(status=400) if kind == "provider_says_no" else Behaviour()
    async with ScriptedProvider(behaviour) as provider, http(base_url=f"http://{gateway.address}") as client:
        model = await stack.model(f"http://127.0.0.1:{free_port()}" if kind == "unreachable" else provider.url)
        customer = await stack.customer("0" if kind == "refused" else "10")
        headers = {"authorization": f"Bearer {'weir_nobody' if kind == 'no_key' else customer.key}"}
        body = {"model": model, "stream": kind == "streamed", "messages": [{"role": "user", "content": "Hello"}]}

        async def ready() -> int:
            try:
                return (await client.get("/readyz")).status_code
            except httpx2.TransportError:
                return 0

        async def ask() -> int:
            return (await client.post("/openai/v1/chat/completions", json=body, headers=headers)).status_code

        await eventually(ready, lambda status: status == 200)
        for _ in range(3):  # the first ones leave what is made once
            await ask()
            gateway.left()
        assert {await ask() for _ in range(REQUESTS)} == {STATUS.get(kind, 200)}
        left = gateway.left()
    assert sum(left.values()) < REQUESTS, left
