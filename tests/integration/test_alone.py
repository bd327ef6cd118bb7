"""Each kind of process by itself, as a supervisor or a container starts it, beside the stores of a running Weir."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from bench.provider import ScriptedProvider
from tests.stack import WEIR, Stack, eventually, http
from weir.bundled import free_port

NAMES = {"gateway": "WEIR_GATEWAY_ADDR", "admin": "WEIR_ADMIN_ADDR", "ledger": ""}


@contextmanager
def alone(name: str, stack: Stack) -> Iterator[tuple[str, str]]:
    """Its own URL, if it serves anyone, and its operator's; at the end it stops when it is told to."""
    port, ops = free_port(), free_port()
    env = {
        **stack.env,
        "WEIR_REDIS_URL": stack.stores["redis"],
        "WEIR_MONGO_URL": stack.stores["mongo"],
        "WEIR_MASTER_KEY": stack.master_key,
        "WEIR_ADMIN_TOKEN": stack.token,
        "WEIR_OPS_ADDR": f"127.0.0.1:{ops}",
        **({NAMES[name]: f"127.0.0.1:{port}"} if NAMES[name] else {}),
    }
    process = subprocess.Popen([*WEIR, name], env=env, stderr=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ops}"
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


async def answers(url: str) -> int:
    async with http() as client:
        try:
            return (await client.get(url)).status_code
        except httpx2.TransportError:
            return 0


@pytest.mark.parametrize("name", NAMES)
async def test_a_process_by_itself_is_ready_and_stops(stack: Stack, name: str) -> None:
    with alone(name, stack) as (_, ops):
        assert await eventually(lambda: answers(f"{ops}/readyz"), lambda status: status == 200, seconds=90)


async def test_a_gateway_by_itself_serves_and_charges(stack: Stack) -> None:
    async with ScriptedProvider() as provider, http() as client:
        model, customer = await stack.model(provider.url), await stack.customer()
        with alone("gateway", stack) as (url, _):
            await eventually(lambda: answers(f"{url}/readyz"), lambda status: status == 200, seconds=90)
            body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
            headers = {"authorization": f"Bearer {customer.key}"}
            answer = await client.post(f"{url}/openai/v1/chat/completions", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
        [event] = await stack.events(customer.id, 1)
        assert (await stack.settled(customer.id))["spent_nanos"] == event["charge_nanos"] > 0
