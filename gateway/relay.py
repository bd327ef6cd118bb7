"""One admitted request on its way: asked, relayed, measured, and what it comes to however it ends.

The ends (docs/billing.md): complete, client left, upstream broke, timed out, stopped at the hold, refused upstream. A
truncated stream is never ended cleanly: SDKs would take it for the whole answer (wire.md 0.4).
"""

import asyncio
import time
from typing import Final

import httpx2

from gateway import metrics
from gateway.bill import End, as_count, settlement
from gateway.cutoff import Cutoff
from gateway.cycle import Cycle
from gateway.dialects.meter import Meter, Usage
from gateway.dialects.multipart import Form
from gateway.dialects.shape import Asked, Call, Dialect, Endpoint, Outgoing
from gateway.headers import Headers, rate_limits, to_caller
from gateway.intake import Weight
from gateway.leaks import without_secrets
from gateway.refusals import Code, Refusal
from gateway.tickets import Ticket, Wish
from gateway.upstream.attempts import Search
from gateway.upstream.client import Answer, Chosen
from ledger import log, tally
from ledger.settlement import Settlement

_ERROR_BODY: Final = 1024 * 1024
READ_WITHIN_S: Final = 120.0
_CREDENTIAL_REFUSED: Final = (401, 402, 403)
_clock: Final = time.perf_counter
_observe_overhead: Final = tally.observer(metrics.OVERHEAD_SECONDS)
_add_chunks: Final = tally.adder(metrics.STREAM_CHUNKS)
_TIER_HEADERS: Final = {"gemini": b"x-gemini-service-tier"}


class Request:
    """A request that was read: in which dialect, what for, the bytes, and what they ask for."""

    def __init__(self, dialect: Dialect, endpoint: Endpoint, call: Call, asked: Asked) -> None:
        self.dialect: Final = dialect
        self.endpoint: Final = endpoint
        self.call: Final = call
        self.asked: Final = asked

    @property
    def wish(self) -> Wish:
        return Wish(self.dialect, self.endpoint, self.asked, self.call.body)


class Relay:
    """Carries one request from hold to settlement; a Flight while it lasts."""

    def __init__(
        self,
        ticket: Ticket,
        request: Request,
        search: Search,
        weight: Weight,
        *,
        began: float,
        drain_s: float,
        task: asyncio.Task[None] | None = None,
    ) -> None:
        self.rid = ticket.rid
        self.place = ticket.place
        self._admitted = self._ticket = ticket
        self._dialect = request.dialect
        self._request: Request | None = request  # until it is answered
        self._weight = weight
        self.search = search
        self._began = began
        self._drain_s = drain_s
        self._meter: Meter | None = None
        self._tier = ""
        self._cutoff = Cutoff(task)
        self._outcome = "upstream_broke"
        self._cut: str | None = None
        self._status: int | None = None
        self._first_byte: float | None = None
        self._bytes_out = 0
        self._sending_since: float | None = None
        self.answering = False

    async def run(self, headers: Headers, cycle: Cycle) -> None:
        """Ask, and relay the answer; raises Refusal if there is none. Whatever happens, `settlement` says the end."""
        if cycle.disconnected:
            self._outcome = "client_left"
            return
        try:
            with self._cutoff:
                # uvicorn's `send` says nothing of a caller who has left (reliability.md 0.9).
                cycle.on_left(self._caller_left)
                _observe_overhead(_clock() - self._began)
                response = await self.search.answer(self._dialect, headers, self._write, form=_is_form(self._request))
                try:
                    await self._relay(response, cycle)
                finally:
                    response.drop()
        except TimeoutError:
            self._outcome = self._cut or "timed_out"
        except Refusal:
            if self.search.chosen is None:  # nobody was asked: nothing broke
                self._outcome = "refused_upstream"
            raise
        finally:
            cycle.on_left(None)

    @property
    def _upstream(self) -> str:
        chosen = self.search.chosen
        return chosen.upstream.name if chosen else ""

    def _write(self, chosen: Chosen) -> Outgoing:
        """The request as it is sent there; from now on it is a matter of the model that serves it there."""
        request = self._request
        assert request is not None
        self._ticket = self._admitted.served_by(chosen.model)
        return request.endpoint.write(request.call, request.asked, model=chosen.target.model, cap=self._ticket.set_cap)

    async def _relay(self, response: Answer, cycle: Cycle) -> None:
        self._status = response.status
        if response.status >= 300:
            await self._relay_refusal(response, cycle)
            return
        kind = _value(response.headers, b"content-type").lower()
        request, self._request = self._request, None
        assert request is not None
        streamed = kind.startswith(b"text/event-stream") or request.asked.streamed
        if self._ticket.facts.fallback_model is not None:
            tally.count(metrics.FALLBACKS, self._admitted.model.name, self._ticket.model.name)
        meter = self._meter = request.endpoint.meter(request.asked, kind)
        del request  # nobody will be asked again: its bytes need not wait for the end of the answer
        self._weight.drop()
        tier = _TIER_HEADERS.get(self._dialect.name)
        self._tier = _value(response.headers, tier).decode("latin-1") if tier else ""
        self.answering = True
        if cycle.flow.write_paused:  # the answer before this one is not read yet
            await self._until_read(cycle)
        cycle.begin(response.status, self._headers(response))
        if not response.begun:  # else the head leaves together with the first piece
            cycle.push(b"")
        if streamed:
            tally.move(metrics.OPEN_STREAMS, by=1)
        last = b""
        try:
            last = await self._pump(response, meter, cycle)
        except httpx2.ReadTimeout:
            self._outcome = "timed_out"
        except httpx2.TransportError as error:
            log.get().warning("upstream_broke", rid=self.rid, upstream=self._upstream, exc=error)
        finally:
            if streamed:
                tally.move(metrics.OPEN_STREAMS, by=-1)
        whole = self._outcome == "complete"
        if whole and self._cut is not None:
            self._outcome = self._cut  # the client had left, and the answer was read to its end all the same
        if last or whole:
            if cycle.flow.write_paused:
                await self._until_read(cycle)
            self._bytes_out += len(last)
            (cycle.finish if whole else cycle.push)(last)
        if not whole:
            await self._tell_broken(kind, cycle)

    async def _pump(self, response: Answer, meter: Meter, cycle: Cycle) -> bytes:
        """Bytes as they come; while the caller is slow the upstream is not read.

        The last of them are returned: they are sent together with what is known by then, that the answer is whole.
        """
        last: list[bytes] = []

        def take(chunk: bytes) -> bool:
            """Called from the upstream's socket: one write to the caller's, and no task in between."""
            if self._first_byte is None:
                self._first_byte = _clock()
            _add_chunks(1)
            data = meter.feed(chunk)
            if response.complete:
                last.append(data)
                return False
            self._bytes_out += len(data)
            return not data or cycle.push(data)

        while await response.relay(take):
            await self._until_read(cycle)
        last.append(meter.finish())
        if meter.done:
            self._outcome = "complete"
        return b"".join(last)

    async def _until_read(self, cycle: Cycle) -> None:
        """Until the caller has read what was written; `look` sees for how long that has been waited for."""
        self._sending_since = time.monotonic()
        await cycle.drained()
        self._sending_since = None

    async def _tell_broken(self, kind: bytes, cycle: Cycle) -> None:
        """Say so in the caller's dialect; the missing end of the body says it to everyone else."""
        streamed = kind.startswith(b"text/event-stream")
        message = "The upstream broke off in the middle of its answer."
        frame = self._dialect.error_frame(message, self.rid) if streamed else b""
        if frame:
            if cycle.flow.write_paused:
                await self._until_read(cycle)
            cycle.push(b"\n\n" + frame)

    async def _relay_refusal(self, response: Answer, cycle: Cycle) -> None:
        """The provider's own error, as it is; but for its view of the operator's credential, which is nobody else's."""
        self._outcome = "refused_upstream"
        if response.status in _CREDENTIAL_REFUSED or response.status < 400:
            log.get().error("upstream_refused", upstream=self._upstream, status=response.status)
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
        body = without_secrets(b"".join(parts))
        self._bytes_out = len(body)
        headers = [(name, value) for name, value in self._headers(response) if name != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        self.answering = True
        if cycle.flow.write_paused:
            await self._until_read(cycle)
        cycle.begin(response.status, headers)
        cycle.finish(body)

    def _headers(self, response: Answer) -> list[tuple[bytes, bytes]]:
        ticket = self._ticket
        headers = to_caller(response.headers)
        headers.append((b"x-weir-request-id", self.rid.encode()))
        if ticket.facts.fallback_model is not None:
            headers.append((b"x-weir-fallback-model", ticket.facts.fallback_model.encode()))
        if ticket.set_cap is not None:
            headers.append((b"x-weir-output-cap", str(ticket.set_cap).encode()))
        rpm, tpm = ticket.snapshot.limits
        headers += rate_limits(self._dialect, "requests", rpm, ticket.admitted.key_requests_us)
        headers += rate_limits(self._dialect, "tokens", tpm, ticket.admitted.key_tokens_us)
        return headers

    def _caller_left(self) -> None:
        chosen = self.search.chosen
        drains = chosen is not None and chosen.upstream.on_client_left == "drain"
        self._end_within(self._drain_s if drains else 0.0, "client_left")

    def _end_within(self, seconds: float, why: str) -> None:
        self._cut = self._cut or why
        self._cutoff.within(seconds)

    def look(self, now: float) -> None:
        """A caller who reads nothing for so long has left; a connection that is merely open does not hold money."""
        if self._sending_since is not None and now - self._sending_since > READ_WITHIN_S:
            self._end_within(0, "client_left")

    def stop(self) -> None:
        """The cost has reached the hold."""
        self._cut = "stopped"
        self._end_within(0, "stopped")

    def used_nanos(self) -> int:
        """A lower bound of the cost so far: what was reported, else the input and the frames seen."""
        meter = self._meter
        if self._first_byte is None or meter is None:
            return 0
        usage = self._reported() or {"input_uncached": self._ticket.input_estimate}
        # Some providers report at the beginning, with the output of one token.
        usage["output"] = max(as_count(usage, "output"), meter.content_frames)
        return min(self._ticket.cost(usage), self._ticket.admitted.amount_nanos)

    def _reported(self) -> Usage | None:
        """What the provider reported; Gemini says in a header which tier served, and that is what counts (wire.md 3b)."""
        usage = self._meter.usage() if self._meter else None
        if usage is not None and self._tier:
            usage.pop("service_tier", None)
            if self._tier != "standard":
                usage["service_tier"] = self._tier
        return usage

    def settlement(self) -> Settlement:
        """What the request comes to."""
        meter, status = self._meter, self._status
        end = End(
            outcome=self._outcome,
            status=status,
            usage=self._reported(),
            whole=meter.done if meter else False,
            estimate=meter.estimate() if meter else None,
            seen=meter.output_seen() if meter else 0,
            answered=status is not None and status < 300,
            served_model=meter.model if meter else None,
            began=self._began,
            first_byte=self._first_byte,
            bytes_out=self._bytes_out,
        )
        chosen = self.search.chosen
        return settlement(self._ticket, chosen.upstream if chosen else None, end)


def _is_form(request: Request | None) -> bool:
    return request is not None and type(request.asked.parsed) is Form


def _value(headers: Headers, name: bytes) -> bytes:
    """The first value of a header; empty if it is not there."""
    for field in headers:
        if field[0] == name:
            return field[1]
    return b""
