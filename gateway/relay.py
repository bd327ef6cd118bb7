"""One admitted request on its way: asked, relayed, measured, and what it comes to however it ends.

The ends (docs/billing.md): complete, client left, upstream broke, timed out, stopped at the hold, refused upstream. A
truncated stream is never ended cleanly: SDKs would take it for the whole answer (wire.md 0.4).
"""

import asyncio
import contextlib
import time
from typing import Any

import httpx2
import msgspec

from gateway import metrics
from gateway.admission import Ticket
from gateway.dialects import openai
from gateway.headers import Headers, rate_limits, to_caller
from gateway.refusals import Code, Refusal
from gateway.upstream.client import Answer, Chosen, Upstreams
from ledger import log, tally
from ledger.settlement import Settlement

_ERROR_BODY = 1024 * 1024
_CREDENTIAL_REFUSED = (401, 403)


class Relay:
    """Carries one request from hold to settlement; a Flight while it lasts."""

    def __init__(self, ticket: Ticket, asked: openai.Asked, chosen: Chosen, *, began: float, drain_s: float) -> None:
        self.rid = ticket.rid
        self.place = ticket.place
        self._ticket = ticket
        self._asked = asked
        self._chosen = chosen
        self._began = began
        self._drain_s = drain_s if chosen.upstream.on_client_left == "drain" else 0.0
        self._meter = openai.Meter(streamed=False, hide_usage=False)
        self._limit = asyncio.timeout(None)
        self._outcome = "upstream_broke"
        self._cut: str | None = None
        self._status: int | None = None
        self._first_byte: float | None = None
        self._bytes_out = 0
        self.answering = False

    async def run(self, upstreams: Upstreams, headers: Headers, body: bytes, receive: Any, send: Any) -> None:
        """Ask, and relay the answer; raises Refusal if there is none. Whatever happens, `settlement` says the end."""
        watcher = asyncio.create_task(self._watch(receive))
        tally.move(metrics.UPSTREAM_OPEN, self._chosen.upstream.name, by=1)
        try:
            async with self._limit:
                model, cap = self._chosen.target.model, self._ticket.set_cap
                out = openai.write_request(body, self._asked, model=model, cap=cap)
                tally.observe(metrics.OVERHEAD_SECONDS, time.perf_counter() - self._began)
                response = await upstreams.ask(self._chosen, "/chat/completions", headers, out)
                async with contextlib.aclosing(response):
                    await self._relay(response, send)
        except TimeoutError:
            self._outcome = self._cut or "timed_out"
        finally:
            watcher.cancel()
            tally.move(metrics.UPSTREAM_OPEN, self._chosen.upstream.name, by=-1)

    async def _relay(self, response: Answer, send: Any) -> None:
        self._status = response.status
        if response.status >= 300:
            await self._relay_refusal(response, send)
            return
        streamed = any(
            name == b"content-type" and value.startswith(b"text/event-stream") for name, value in response.headers
        )
        self._meter = openai.Meter(streamed=streamed, hide_usage=streamed and not self._asked.wants_usage)
        self.answering = True
        await send({"type": "http.response.start", "status": response.status, "headers": self._headers(response)})
        if streamed:
            tally.move(metrics.OPEN_STREAMS, by=1)
        try:
            await self._pump(response, send)
        except httpx2.ReadTimeout:
            self._outcome = "timed_out"
        except httpx2.TransportError as error:
            log.get().warning("upstream_broke", rid=self.rid, upstream=self._chosen.upstream.name, exc=error)
        finally:
            if streamed:
                tally.move(metrics.OPEN_STREAMS, by=-1)
        if self._outcome != "complete":
            await self._tell_broken(streamed, send)
            return
        if self._cut is not None:
            self._outcome = self._cut  # the client had left, and the answer was read to its end all the same
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, response: Answer, send: Any) -> None:
        """Bytes as they come; `await send` waits when the caller is slow, and then the upstream is not read."""
        while chunk := await response.next_chunk():
            if self._first_byte is None:
                self._first_byte = time.perf_counter()
            tally.count(metrics.STREAM_CHUNKS)
            await self._send(self._meter.feed(chunk), send)
        await self._send(self._meter.finish(), send)
        if self._meter.done or self._meter.usage() is not None:
            self._outcome = "complete"

    async def _send(self, data: bytes, send: Any) -> None:
        if data:
            self._bytes_out += len(data)
            await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _tell_broken(self, streamed: bool, send: Any) -> None:
        """Say so in the caller's dialect; the missing end of the body says it to everyone else."""
        if streamed:
            frame = b"\n\n" + openai.error_frame("The upstream broke off in the middle of its answer.")
            await send({"type": "http.response.body", "body": frame, "more_body": True})

    async def _relay_refusal(self, response: Answer, send: Any) -> None:
        """The provider's own error, as it is; but for its view of the operator's credential, which is nobody else's."""
        self._outcome = "refused_upstream"
        if response.status in _CREDENTIAL_REFUSED or response.status < 400:
            log.get().error("upstream_refused", upstream=self._chosen.upstream.name, status=response.status)
            raise Refusal(Code.UPSTREAM_ERROR, "The upstream refused the gateway; its operator has been told.")
        parts, size = [], 0
        try:
            while chunk := await response.next_chunk():
                size += len(chunk)
                if size > _ERROR_BODY:
                    break
                parts.append(chunk)
        except httpx2.TransportError:
            raise Refusal(Code.UPSTREAM_ERROR, "The upstream broke off in its error message.") from None
        body = b"".join(parts)
        self._bytes_out = len(body)
        headers = [(name, value) for name, value in self._headers(response) if name != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        self.answering = True
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _headers(self, response: Answer) -> list[tuple[bytes, bytes]]:
        ticket = self._ticket
        headers = to_caller(response.headers)
        headers.append((b"x-weir-request-id", self.rid.encode()))
        if ticket.set_cap is not None:
            headers.append((b"x-weir-output-cap", str(ticket.set_cap).encode()))
        rpm, tpm = ticket.snapshot.limits
        headers += rate_limits("requests", rpm, ticket.admitted.key_requests_us)
        headers += rate_limits("tokens", tpm, ticket.admitted.key_tokens_us)
        return headers

    async def _watch(self, receive: Any) -> None:
        """Notice that the caller has left: uvicorn's send says nothing (reliability.md 0.9)."""
        while True:
            if (await receive())["type"] == "http.disconnect":
                self._end_within(self._drain_s, "client_left")
                return

    def _end_within(self, seconds: float, why: str) -> None:
        self._cut = self._cut or why
        with contextlib.suppress(RuntimeError):  # it has ended by itself meanwhile
            self._limit.reschedule(asyncio.get_running_loop().time() + seconds)

    def stop(self) -> None:
        """The cost has reached the hold."""
        self._cut = "stopped"
        self._end_within(0, "stopped")

    def used_nanos(self) -> int:
        """A lower bound of the cost so far: what was reported, else the input and the frames seen."""
        if self._first_byte is None:
            return 0
        usage = self._meter.usage() or {
            "input_uncached": self._ticket.input_estimate,
            "output": self._meter.content_frames,
        }
        return min(self._ticket.cost(usage), self._ticket.admitted.amount_nanos)

    def settlement(self) -> Settlement:
        """What the request comes to. Nothing but an answer costs: a refusal, or a break before any content, is void."""
        usage: dict[str, int | str] | None = self._meter.usage()
        answered = self._status is not None and self._status < 300
        # The provider keeps to the cap, so what was seen is never more; and a bill is never above its quote.
        seen = min(self._meter.output_seen(), self._ticket.most_output)
        void = not answered or (usage is None and seen == 0 and self._outcome != "complete")
        estimated = usage is None and not void
        if usage is None:
            usage = {} if void else {"input_uncached": self._ticket.input_estimate, "output": seen}
        ended = time.perf_counter()
        tally.observe(metrics.REQUEST_SECONDS, ended - self._began)
        if self._first_byte is not None:
            tally.observe(metrics.TTFT_SECONDS, self._first_byte - self._began)
        upstream = self._chosen.upstream
        return Settlement(
            self.rid,
            *self.place,
            cost_nanos=0 if void else self._ticket.cost(usage),
            tokens=None if void else _total(usage),
            admitted_us=self._ticket.admitted.at_us,
            void=void,
            facts=msgspec.structs.replace(
                self._ticket.facts,
                admitted_us=self._ticket.admitted.at_us,
                outcome=self._outcome,
                served_model=self._meter.model,
                provider=upstream.provider,
                upstream=upstream.name,
                status=self._status,
                estimated=estimated,
                usage=usage,
                quote_nanos=self._ticket.admitted.amount_nanos,
                latency_ms=round((ended - self._began) * 1000),
                ttft_ms=None if self._first_byte is None else round((self._first_byte - self._began) * 1000),
                bytes_out=self._bytes_out,
            ),
        )


def _total(usage: dict[str, int | str]) -> int:
    """Tokens as a rate limit counts them."""
    names = ("input_uncached", "cache_read", "cache_write", "output")
    return sum(value for name in names if isinstance(value := usage.get(name, 0), int))
