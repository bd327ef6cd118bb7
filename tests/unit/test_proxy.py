"""A request's body counts against the worker's bound until it is not needed any more: however it ends, and once."""

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


class Idle:
    full = False


@pytest.mark.parametrize("body", [BODY, b"no JSON"])
async def test_a_refused_body_counts_no_longer(body: bytes) -> None:
    asked = Asked()
    proxy = Proxy(
        cast("Admission", asked), cast("Pools", None), cast("Settler", Idle()), cast("Flights", None), drain_s=0
    )
    asked.intake = proxy._intake
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
    assert transport.written[0].startswith(b"HTTP/1.1 402" if body is BODY else b"HTTP/1.1 400")
    assert asked.buffered == ([len(BODY)] if body is BODY else [])
    assert proxy._intake.buffered == 0


def test_what_is_dropped_again_is_not_taken_off_again() -> None:
    intake = Intake()
    intake.buffered = 30
    weight = Weight(intake, 10)
    weight.drop()
    weight.drop()
    assert intake.buffered == 20
