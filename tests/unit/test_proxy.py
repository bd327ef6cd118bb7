"""A request's body counts against the worker's bound until it is not needed any more: however it ends, and once."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.admission import Admission
from gateway.flights import Flights
from gateway.intake import Intake, Weight
from gateway.proxy import Proxy
from gateway.refusals import Code, Refusal
from gateway.settler import Settler
from gateway.surface import find
from gateway.upstream.pools import Pools
from tests.billing import PLACE
from tests.unit.test_cycle import cycle

BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'


class Asked:
    """An admission that knows every key and refuses every request; what was buffered when it did."""

    def __init__(self) -> None:
        self.intake: Intake
        self.buffered: list[int] = []

    def known(self, *_: Any) -> tuple[None, Any]:
        return None, SimpleNamespace(place=PLACE)

    async def admit(self, *_: Any) -> None:
        self.buffered.append(self.intake.buffered)
        raise Refusal(Code.INSUFFICIENT_BALANCE, "No.")


class Waited(Asked):
    """The same, but each request waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[asyncio.Event] = []

    async def admit(self, *_: Any) -> None:
        self.gates.append(asyncio.Event())
        await self.gates[-1].wait()
        await super().admit()


class Idle:
    full = False


def proxy_for(asked: Asked) -> Proxy:
    proxy = Proxy(
        cast("Admission", asked), cast("Pools", None), cast("Settler", Idle()), cast("Flights", None), drain_s=0
    )
    asked.intake = proxy._intake
    return proxy


async def serve(proxy: Proxy, body: bytes) -> bytes:
    """What a request with this body is answered."""
    made, transport, _ = cycle()
    made.body += body
    made.more_body = False
    scope = {
        "method": "POST",
        "raw_path": b"/openai/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"host", b"a"), (b"authorization", b"Bearer k"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "extensions": {"weir.cycle": made},
    }
    served = find(scope)
    assert served is not None
    await proxy(served, scope, made.receive, made.send)
    return transport.written[0]


@pytest.mark.parametrize("body", [BODY, b"no JSON"])
async def test_a_refused_body_counts_no_longer(body: bytes) -> None:
    asked = Asked()
    proxy = proxy_for(asked)
    answer = await serve(proxy, body)
    assert answer.startswith(b"HTTP/1.1 402" if body is BODY else b"HTTP/1.1 400")
    assert asked.buffered == ([len(BODY)] if body is BODY else [])
    assert proxy._intake.buffered == 0


async def test_it_is_idle_when_the_last_request_has_ended() -> None:
    """What a shutdown waits for before it closes the settler: every charge is on its queue by then."""
    asked = Waited()
    proxy = proxy_for(asked)
    await proxy.idle()
    for _ in range(2):
        requests = [asyncio.create_task(serve(proxy, BODY)) for _ in range(2)]
        idle = asyncio.create_task(proxy.idle())
        while len(asked.gates) < 2:
            await asyncio.sleep(0)
        asked.gates.pop().set()
        await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
        assert not idle.done()
        asked.gates.pop().set()
        await asyncio.gather(*requests)
        await idle


def test_what_is_dropped_again_is_not_taken_off_again() -> None:
    intake = Intake()
    intake.buffered = 30
    weight = Weight(intake, 10)
    weight.drop()
    weight.drop()
    assert intake.buffered == 20
