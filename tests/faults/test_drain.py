"""T12: SIGTERM with many streams open: those that end in time are whole, the others are cut, and all are charged."""

import asyncio
import time
from pathlib import Path

from bench.provider import Behaviour, ScriptedProvider
from tests.faults.options import Tally, asked
from tests.faults.servers import since
from tests.stack import Customer, Stack, running_stack

STREAMS = asked(full=500, short=60)
GRACE_S = 2
WORDS = 30
EXIT_S = GRACE_S + 5


async def test_t12_drain(tally: Tally, tmp_path: Path) -> None:
    """Half of the streams go on when the signal has come; the other half never would."""
    behaviour = Behaviour(text=" ".join(["word"] * WORDS), chunks=WORDS, stall_after_chunks=10)
    async with ScriptedProvider(behaviour) as provider:
        with running_stack(tmp_path / "data", WEIR_GRACE_S=str(GRACE_S)) as stack:
            model, customer = await stack.model(provider.url), await stack.customer("1000")
            streams = [asyncio.create_task(_stream(stack, customer, model)) for _ in range(STREAMS)]
            await provider.wait_for(lambda p: p.stats.held == STREAMS, timeout_s=60)
            began = time.monotonic()
            stack.process.terminate()
            await asyncio.sleep(0.5)
            provider.release(STREAMS // 2)
            answers = await asyncio.gather(*streams)
            assert await asyncio.to_thread(stack.process.wait, 60) == 0
            tally.note(exit_s=since(began))
        whole = sum(b"data: [DONE]" in answer for answer in answers)
        with running_stack(tmp_path / "data") as again:
            await _compare(tally, again, customer, whole)
    tally.at_least(streams=STREAMS, whole=STREAMS // 2, audit_agrees=1)
    tally.at_most(lost=0, held_nanos=0)
    tally.at_most_seconds(exit_s=EXIT_S)
    tally.check()


async def _compare(tally: Tally, stack: Stack, customer: Customer, whole: int) -> None:
    settled = await stack.settled(customer.id)
    report = stack.audit()
    cut = STREAMS - whole
    tally.note(streams=STREAMS, whole=whole, cut=cut, lost=STREAMS - report["events"], held_nanos=settled["held_nanos"])
    tally.note(audit_agrees=int(report["agrees"]), spent_nanos=settled["spent_nanos"])
    least = whole * WORDS * 10_000 + cut * 10 * 10_000
    assert settled["spent_nanos"] >= least, f"{settled} is less than what was sent costs, {least}"


async def _stream(stack: Stack, customer: Customer, model: str) -> bytes:
    """All that came of one streamed request."""
    host, port = stack.gateway.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}],"max_tokens":100,"stream":true}}'
    head = f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {customer.key}\r\n"
    writer.write(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
    try:
        found = b""
        while chunk := await reader.read(65536):
            found += chunk
    except OSError:
        pass
    finally:
        writer.transport.abort()
    return found
