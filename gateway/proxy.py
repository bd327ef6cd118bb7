"""The life of a request, in the order in which it happens (design.md section 4)."""

import asyncio
import math
import time
from typing import Any

from gateway import headers as header_rules
from gateway import metrics
from gateway.admission import Admission, Unsure
from gateway.bill import void
from gateway.cycle import Cycle
from gateway.dialects.body import BadBody
from gateway.dialects.secrets import header
from gateway.dialects.shape import Call, Dialect, Endpoint
from gateway.flights import Flights
from gateway.flow import Signal
from gateway.headers import Headers
from gateway.intake import ClientLeft, Intake, Weight
from gateway.refusals import Code, Refusal, unavailable
from gateway.relay import Relay, Request
from gateway.settler import Settler
from gateway.surface import Served
from gateway.tickets import Ticket
from gateway.upstream.attempts import Search
from gateway.upstream.choice import Want
from gateway.upstream.pools import Pools
from ledger import log, request_id, tally


class Cut(Exception):
    """Something failed after the answer had begun: nothing can be said any more, and the connection ends without its end."""


class Proxy:
    """Every endpoint that is forwarded, as one raw ASGI function.

    Not a StreamingResponse and not behind BaseHTTPMiddleware: both lose the settlement when the client leaves.
    """

    def __init__(
        self, admission: Admission, pools: Pools, settler: Settler, flights: Flights, *, drain_s: float
    ) -> None:
        self._admission = admission
        self._pools = pools
        self._settler = settler
        self._flights = flights
        self._intake = Intake()
        self._drain_s = drain_s
        self._serving = 0
        self._idle = Signal()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no request is being served, and so every charge is on the settler's queue."""
        await self._idle.wait()

    async def __call__(self, served: Served, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; `served` has an endpoint."""
        began = time.perf_counter()
        rid = request_id.new()
        if not self._serving:
            self._idle.clear()
        self._serving += 1
        refusal: Refusal | None = None
        try:
            try:
                await self._serve(served, scope, receive, rid, began)
            except Refusal as error:
                refusal = error
            except ClientLeft:
                tally.count(metrics.REFUSALS, "client_left")
            except Exception as error:  # noqa: BLE001 - our bug; the caller gets an answer and the log its place
                log.get().error("request_failed", rid=rid, exc=error)
                if not isinstance(error, Cut):
                    refusal = unavailable()
            if refusal is not None:
                await refuse(send, rid, refusal, served.dialect)
        finally:
            refusal = None  # it knows this frame, and this frame it
            self._serving -= 1
            if not self._serving:
                self._idle.set()

    async def _serve(self, served: Served, scope: Any, receive: Any, rid: str, began: float) -> None:
        dialect, endpoint = served.dialect, served.endpoint
        assert endpoint is not None
        # As they are before the body: whatever is appended later is a trailer (docs/wire.md 6.8).
        headers: Headers = tuple(scope["headers"])
        if scope["method"] != "POST":
            raise Refusal(Code.METHOD_NOT_ALLOWED, "This path takes POST only.")
        said = header_rules.check(headers)
        query: bytes = scope["query_string"]
        secret = dialect.secret(said, query)
        address = scope["client"][0] if scope["client"] else ""
        known = self._admission.known(secret, address, endpoint.name)
        key, snapshot = known or await self._admission.look_up(secret, address, endpoint.name)
        if self._settler.full:
            raise unavailable()
        cycle: Cycle = scope["extensions"]["weir.cycle"]
        body = self._intake.take(cycle)
        if body is None:
            body = await self._intake.read(receive)
        weight = Weight(self._intake, len(body))
        try:
            request = _read(dialect, endpoint, Call(body, header(said, b"content-type"), query, served.target))
            del body
            ticket = await self._admit(rid, key, snapshot, request, address)
            relay = self._relay(ticket, request, weight, began, cycle.task)
            del request  # a stream may last for minutes: what it was asked for is the relay's alone, and soon nobody's
            await self._carry(relay, headers, cycle)
        finally:
            weight.drop()

    async def _admit(self, rid: str, key: Any, snapshot: Any, request: Request, address: str) -> Ticket:
        """Take the hold. If it is not known whether there is one, a void goes after it: it is right either way."""
        place = snapshot.place
        try:
            return await self._admission.admit(rid, key, snapshot, request.wish, address)
        except (Unsure, asyncio.CancelledError) as error:
            self._settler.put(void(rid, place, request.wish))
            if isinstance(error, Unsure):
                raise unavailable() from None
            raise

    def _relay(
        self, ticket: Ticket, request: Request, weight: Weight, began: float, task: asyncio.Task[None] | None
    ) -> Relay:
        models = (ticket.model, *[each.model for each in ticket.standins])
        stages = [self._pools.able(model, ticket.opened, request.dialect) for model in models]
        want = Want(ticket.tokens, request.asked.sticky)
        search = Search(self._pools, stages, want, self._pools.line(ticket.model))
        return Relay(ticket, request, search, weight, began=began, drain_s=self._drain_s, task=task)

    async def _carry(self, relay: Relay, headers: Headers, cycle: Cycle) -> None:
        self._flights.add(relay)
        try:
            await relay.run(headers, cycle)
        except Exception as error:
            if relay.answering and not isinstance(error, Refusal):
                raise Cut from error
            raise
        finally:
            self._flights.remove(relay)
            ended = relay.settlement()
            self._settler.put(ended)  # no await here: nothing can come between the end and its charge
            relay.search.close(ended.tokens or 0)


def _read(dialect: Dialect, endpoint: Endpoint, call: Call) -> Request:
    try:
        return Request(dialect, endpoint, call, endpoint.read(call))
    except BadBody as bad:
        raise Refusal(Code.INVALID_REQUEST, str(bad)) from None


async def refuse(send: Any, rid: str, refusal: Refusal, dialect: Dialect) -> None:
    """A refusal in the caller's dialect, as a whole response."""
    tally.count(metrics.REFUSALS, refusal.code.word)
    body = dialect.error_body(refusal, rid)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-weir-request-id", rid.encode()),
        (b"x-weir-refusal", refusal.code.word.encode()),
        (dialect.request_id_header, rid.encode()),
    ]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(max(math.ceil(refusal.retry_after_s), 1)).encode()))
    if refusal.code in (Code.REQUEST_TOO_LARGE, Code.REQUEST_TIMEOUT):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.code.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
