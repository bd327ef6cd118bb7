"""The life of a request, in the order in which it happens (design.md section 4)."""

import asyncio
import math
import time
from typing import Any

from gateway import headers as header_rules
from gateway import metrics
from gateway.admission import Admission, Ticket, Unsure
from gateway.dialects import openai
from gateway.dialects.body import BadBody
from gateway.flights import Flights
from gateway.headers import Headers
from gateway.intake import ClientLeft, Intake
from gateway.refusals import Code, Refusal, unavailable, unknown_path
from gateway.relay import Relay
from gateway.settler import Settler
from gateway.upstream.client import Upstreams, choose
from ledger import log, request_id, tally
from ledger.facts import Facts
from ledger.hot import Place
from ledger.settlement import Settlement


class Cut(Exception):
    """Something failed after the answer had begun: nothing can be said any more, and the connection ends without its end."""


class ChatCompletions:
    """POST /v1/chat/completions as a raw ASGI endpoint.

    Not a StreamingResponse and not behind BaseHTTPMiddleware: both lose the settlement when the client leaves.
    """

    def __init__(
        self, admission: Admission, upstreams: Upstreams, settler: Settler, flights: Flights, *, drain_s: float
    ) -> None:
        self._admission = admission
        self._upstreams = upstreams
        self._settler = settler
        self._flights = flights
        self._intake = Intake()
        self._drain_s = drain_s
        self._serving = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no request is being served, and so every charge is on the settler's queue."""
        await self._idle.wait()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        began = time.perf_counter()
        rid = request_id.new()
        self._serving += 1
        self._idle.clear()
        try:
            await self._serve(scope, receive, send, rid, began)
        except Refusal as refusal:
            await refuse(send, rid, refusal)
        except ClientLeft:
            tally.count(metrics.REFUSALS, "client_left")
        except Exception as error:  # noqa: BLE001 - our bug; the caller gets an answer and the log its place
            log.get().error("request_failed", rid=rid, exc=error)
            if not isinstance(error, Cut):
                await refuse(send, rid, unavailable())
        finally:
            self._serving -= 1
            if not self._serving:
                self._idle.set()

    async def _serve(self, scope: Any, receive: Any, send: Any, rid: str, began: float) -> None:
        headers: Headers = tuple(
            scope["headers"]
        )  # a trailer is appended to the list once the body is read (wire.md 0.10)
        if scope["raw_path"] != scope["path"].encode():  # an escaped spelling of a path is another path
            raise unknown_path()
        if scope["method"] != "POST":
            raise Refusal(Code.METHOD_NOT_ALLOWED, "This path takes POST only.")
        header_rules.check(headers)
        secret = header_rules.bearer(headers)
        address = scope["client"][0] if scope["client"] else ""
        key, snapshot = await self._admission.identify(secret, address, openai.ENDPOINT)
        if self._settler.full:
            raise unavailable()
        body = await self._intake.read(receive)
        try:
            asked = _read(body)
            ticket = await self._admit(rid, key, snapshot, asked, len(body))
            await self._forward(ticket, asked, headers, body, receive, send, began)
        finally:
            self._intake.release(len(body))

    async def _admit(self, rid: str, key: Any, snapshot: Any, asked: openai.Asked, size: int) -> Ticket:
        """Take the hold. If it is not known whether there is one, a void goes after it: it is right either way."""
        place = snapshot.place
        try:
            return await self._admission.admit(
                rid, key, snapshot, asked, dialect=openai.DIALECT, endpoint=openai.ENDPOINT, body_bytes=size
            )
        except (Unsure, asyncio.CancelledError) as error:
            self._settler.put(_void(rid, place, asked))
            if isinstance(error, Unsure):
                raise unavailable() from None
            raise

    async def _forward(
        self,
        ticket: Ticket,
        asked: openai.Asked,
        headers: Headers,
        body: bytes,
        receive: Any,
        send: Any,
        began: float,
    ) -> None:
        try:
            chosen = choose(ticket.model, ticket.opened)
        except Refusal:
            self._settler.put(_void(ticket.rid, ticket.place, asked, ticket.facts))
            raise
        relay = Relay(ticket, asked, chosen, began=began, drain_s=self._drain_s)
        self._flights.add(relay)
        try:
            await relay.run(self._upstreams, headers, body, receive, send)
        except Exception as error:
            if relay.answering and not isinstance(error, Refusal):
                raise Cut from error
            raise
        finally:
            self._flights.remove(relay)
            self._settler.put(relay.settlement())  # no await here: nothing can come between the end and its charge


def _read(body: bytes) -> openai.Asked:
    try:
        return openai.read_request(body)
    except BadBody as bad:
        raise Refusal(Code.INVALID_REQUEST, str(bad)) from None


def _void(rid: str, place: Place, asked: openai.Asked, facts: Facts | None = None) -> Settlement:
    facts = facts or Facts(
        account=place.account,
        api_key=place.key,
        model=metrics.OTHER,
        dialect=openai.DIALECT,
        endpoint=openai.ENDPOINT,
        price_version=0,
        streamed=asked.streamed,
        outcome="refused_upstream",
    )
    began_us = request_id.began_ms(rid) * 1000
    return Settlement(rid, *place, cost_nanos=0, tokens=None, admitted_us=began_us, facts=facts, void=True)


async def refuse(send: Any, rid: str, refusal: Refusal) -> None:
    """A refusal in the caller's dialect, as a whole response."""
    tally.count(metrics.REFUSALS, refusal.code.word)
    body = openai.error_body(refusal)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-weir-request-id", rid.encode()),
        (b"x-weir-refusal", refusal.code.word.encode()),
        (b"x-request-id", rid.encode()),
    ]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(max(math.ceil(refusal.retry_after_s), 1)).encode()))
    if refusal.code in (Code.REQUEST_TOO_LARGE, Code.REQUEST_TIMEOUT):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.code.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
