"""One session over WebSocket: a connection of a caller and one to the provider, and many responses between them.

Each response is admitted, held and settled like a request (docs/wire.md 1b.10). A realtime session always holds what its
next response can cost, because the provider may begin one by itself; when the balance no longer covers that, the session
ends. On `/responses` each frame that asks is admitted before it is passed on.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gateway import headers as header_rules
from gateway import metrics
from gateway.admission import Admission, Unsure
from gateway.bill import void
from gateway.dialects.openai import realtime
from gateway.dialects.openai.realtime import Ended, Realtime, ResponsesSocket
from gateway.dialects.shape import Asked, Dialect
from gateway.flights import Flights
from gateway.headers import Headers
from gateway.legs import CallerLeft, Leg, carried, close_both, event_of
from gateway.refusals import Code, Refusal, unavailable
from gateway.settler import Settler
from gateway.tickets import Wish
from gateway.upstream.choice import Want
from gateway.upstream.client import Chosen
from gateway.upstream.dialer import Dialer, Hello
from gateway.upstream.pools import Pools
from ledger import request_id, tally

POLICY, WENT_WRONG, GOING_AWAY, NORMAL = 1008, 1011, 1001, 1000
_SUBPROTOCOL = "realtime"


class Services(NamedTuple):
    """What every session of a worker works with. `public_only`: upstreams have public addresses only."""

    admission: Admission
    pools: Pools
    context: ssl.SSLContext
    settler: Settler
    flights: Flights
    drain_s: float
    public_only: bool


class Session:
    """One connection of a caller, and one to the provider."""

    def __init__(self, house: Services, dialect: Dialect, scope: Any, receive: Any, send: Any, rid: str) -> None:
        self._house = house
        self._dialect = dialect
        self._scope = scope
        self._receive = receive
        self._send = send
        self._rid = rid
        self._headers: Headers = tuple(scope["headers"])
        self._leg: Leg | None = None
        self._over = asyncio.Event()  # nothing that costs is under way
        self._over.set()
        self._upstream: ClientConnection | None = None
        self._chosen: Chosen | None = None
        self._able: Sequence[Chosen] = ()
        self._early: str | bytes | None = None
        self._dialer = Dialer(house.pools, house.context, dialect, self._headers, public_only=house.public_only)

    async def _identify(self, kind: Realtime | ResponsesSocket) -> None:
        await self._receive()  # websocket.connect
        said = header_rules.check(self._headers)
        secret = self._dialect.secret(said, self._scope["query_string"])
        self._address = self._scope["client"][0] if self._scope["client"] else ""
        self._key, self._snapshot = await self._house.admission.identify(secret, self._address, kind.name)

    async def _hold(self, kind: Realtime | ResponsesSocket, asked: Asked, frame: bytes = b"") -> int | None:
        """Hold what the next response can cost; the cap that Weir sets, if any. The first has the session's id."""
        house, rid = self._house, self._rid
        wish = Wish(self._dialect, kind, asked, frame, alone=True)
        if house.settler.full:
            raise unavailable()
        try:
            ticket = await house.admission.admit(rid, self._key, self._snapshot, wish, self._address)
        except (Unsure, asyncio.CancelledError) as error:
            house.settler.put(void(rid, self._snapshot.place, wish))
            if isinstance(error, Unsure):
                raise unavailable() from None
            raise
        self._rid = request_id.new()
        self._leg = Leg(ticket)
        house.flights.add(self._leg)
        self._able = house.pools.able(ticket.model, ticket.opened, self._dialect)
        if self._chosen is not None:
            self._stay(self._leg, self._chosen)
        return ticket.set_cap

    def _stay(self, leg: Leg, there: Chosen) -> None:
        """The next response of a session comes from where it is connected."""
        self._chosen = next((each for each in self._able if each.upstream.id == there.upstream.id), None)
        if self._chosen is None:
            self._chosen = there
            self._settle("refused_upstream")
            raise Refusal(Code.INVALID_REQUEST, "This model has another upstream; open a session of its own for it.")
        self._begin(leg, self._chosen)

    def _begin(self, leg: Leg, chosen: Chosen) -> None:
        leg.upstream = chosen.upstream
        self._house.pools.health.rooms.begin(chosen.upstream.id, leg.tokens.total)

    def _settle(self, outcome: str, ended: Ended | None = None) -> None:
        """The response has ended, however it did."""
        leg, self._leg = self._leg, None
        if leg is not None:
            self._house.flights.remove(leg)
            bill = leg.end(outcome, ended)
            self._house.settler.put(bill)
            if leg.upstream is not None:
                self._house.pools.health.rooms.end(leg.upstream.id, leg.tokens.total, bill.tokens or 0)
        self._over.set()

    async def _connect(self, path: Callable[[Chosen], str], hello: Hello) -> None:
        """To one that answers; the session stays there."""
        leg = self._leg
        assert leg is not None
        try:
            line = await self._dialer.dial(self._able, Want(leg.tokens), path, hello)
        except Refusal:
            self._settle("refused_upstream")
            raise
        self._chosen, self._upstream, self._early = line
        self._begin(leg, line.chosen)

    async def _accept(self) -> None:
        offered = self._scope.get("subprotocols") or []
        headers = [(b"x-weir-request-id", self._rid.encode())]
        await self._send(
            {
                "type": "websocket.accept",
                "subprotocol": _SUBPROTOCOL if _SUBPROTOCOL in offered else None,
                "headers": headers,
            }
        )

    async def _converse(self) -> None:
        """Both directions until either ends; a response that is under way when the caller leaves is drained."""
        caller = asyncio.create_task(self._from_caller())
        provider = asyncio.create_task(self._from_provider())
        code, reason = NORMAL, ""
        try:
            await asyncio.wait((caller, provider), return_when=asyncio.FIRST_COMPLETED)
            if not provider.done() and self._drains():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), self._house.drain_s)
        finally:
            for task in (caller, provider):
                task.cancel()
            ended = await asyncio.gather(caller, provider, return_exceptions=True)
            code, reason = self._why(ended)
            await close_both(self._upstream, self._send, code, reason)

    def _drains(self) -> bool:
        return self._leg is not None and self._leg.begun and self._chosen.upstream.on_client_left == "drain"  # type: ignore[union-attr]

    def _why(self, ended: Sequence[Any]) -> tuple[int, str]:
        """The close code for the caller, and what the response that was under way is settled as."""
        caller, provider = ended
        for error in ended:
            if isinstance(error, Refusal):
                self._settle("stopped")
                return POLICY, error.code.word
        if isinstance(provider, ConnectionClosed):
            self._settle("upstream_broke")
            received = provider.rcvd
            return (received.code, received.reason) if received and received.code < 1015 else (WENT_WRONG, "")
        self._settle("client_left")
        for error in (caller, provider):
            if isinstance(error, Exception) and not isinstance(error, CallerLeft):
                raise error
        return GOING_AWAY, ""

    async def _from_caller(self) -> None:
        raise NotImplementedError

    async def _after(self) -> None:
        """A response has ended and was settled."""

    def _ended(self, event: dict[str, Any]) -> Ended | None:
        raise NotImplementedError

    async def _from_provider(self) -> None:
        upstream = self._upstream
        assert upstream is not None
        left = False
        while True:
            early, self._early = self._early, None
            frame, message = carried(await upstream.recv() if early is None else early)
            leg = self._leg
            if leg is not None:
                leg.pass_on(frame)
                if leg.begun:
                    self._over.clear()
            ended = self._ended(event_of(frame)) if realtime.may_end(frame) else None
            if not left:
                try:
                    await self._send(message)
                except Exception:  # noqa: BLE001 - whatever uvicorn raises, the caller has left: read on to the bill
                    left = True
            if ended is not None and self._leg is not None:
                self._settle("client_left" if left else "complete", ended)
                if left:
                    raise CallerLeft
                await self._after()

    async def _tell(self, refusal: Refusal) -> None:
        tally.count(metrics.REFUSALS, refusal.code.word)
        await self._send({"type": "websocket.send", "text": realtime.error_event(refusal)})
