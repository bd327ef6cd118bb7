"""The life of a WebSocket session, in the order in which it happens (wire.md 1a and 1b, design.md section 4)."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gateway import headers as header_rules
from gateway import metrics
from gateway.admission import Admission, Unsure, Wish
from gateway.bill import void
from gateway.dialects.body import BadBody
from gateway.dialects.openai import realtime
from gateway.dialects.openai.realtime import Ended, Realtime, ResponsesSocket
from gateway.dialects.shape import Asked, Dialect
from gateway.flights import Flights
from gateway.headers import Headers
from gateway.refusals import Code, Refusal, unavailable
from gateway.session import CallerLeft, Leg, close_both, event_of, frames_of_caller, next_frame
from gateway.settler import Settler
from gateway.upstream.attempts import Pools
from gateway.upstream.choice import choose
from gateway.upstream.client import Chosen
from gateway.upstream.socket import open_socket
from ledger import log, request_id, tally

POLICY, WENT_WRONG, GOING_AWAY, NORMAL = 1008, 1011, 1001, 1000
_SUBPROTOCOL = "realtime"


class Sessions:
    """What every session of this worker needs."""

    def __init__(
        self,
        admission: Admission,
        pools: Pools,
        context: ssl.SSLContext,
        settler: Settler,
        flights: Flights,
        *,
        drain_s: float,
        public_only: bool,
    ) -> None:
        self.admission = admission
        self.pools = pools
        self.context = context
        self.settler = settler
        self.flights = flights
        self.drain_s = drain_s
        self.public_only = public_only
        self._open: set[asyncio.Task[Any]] = set()

    async def idle(self) -> None:
        """Wait until no session is left, and so every charge is on the settler's queue."""
        while self._open:
            await asyncio.wait(self._open)

    async def __call__(
        self, dialect: Dialect, kind: Realtime | ResponsesSocket, scope: Any, receive: Any, send: Any
    ) -> None:
        """Serve one session."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        rid = request_id.new()
        session = RealtimeSession if isinstance(kind, Realtime) else ResponsesSession
        try:
            await session(self, dialect, scope, receive, send, rid).run()
        except Refusal as refusal:
            await refuse(send, rid, refusal, dialect)
        except CallerLeft:
            tally.count(metrics.REFUSALS, "client_left")
        except Exception as error:  # noqa: BLE001 - our bug; the caller gets an end and the log its place
            log.get().error("session_failed", rid=rid, exc=error)
            await close_both(None, send, WENT_WRONG, "")
        finally:
            self._open.discard(task)


class Session:
    """One connection of a caller, and one to the provider."""

    def __init__(self, house: Sessions, dialect: Dialect, scope: Any, receive: Any, send: Any, rid: str) -> None:
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

    async def _identify(self, kind: Realtime | ResponsesSocket) -> None:
        await self._receive()  # websocket.connect
        header_rules.check(self._headers)
        secret = self._dialect.secret(self._headers, self._scope["query_string"])
        address = self._scope["client"][0] if self._scope["client"] else ""
        self._key, self._snapshot = await self._house.admission.identify(secret, address, kind.name)

    async def _hold(self, kind: Realtime | ResponsesSocket, asked: Asked, frame: bytes = b"") -> int | None:
        """Hold what the next response can cost; the cap that Weir sets, if any. The first has the session's id."""
        house, rid = self._house, self._rid
        wish = Wish(self._dialect, kind, asked, frame)
        if house.settler.full:
            raise unavailable()
        try:
            ticket = await house.admission.admit(rid, self._key, self._snapshot, wish)
        except (Unsure, asyncio.CancelledError) as error:
            house.settler.put(void(rid, self._snapshot.place, wish))
            if isinstance(error, Unsure):
                raise unavailable() from None
            raise
        self._rid = request_id.new()
        try:
            pools = house.pools
            able = pools.able(ticket.model, ticket.opened, self._dialect)
            chosen: Chosen | None
            if self._chosen is None:
                chosen = choose(able, pools.health, (), None)
            else:
                upstream = self._chosen.upstream.id
                chosen = next((each for each in able if each.upstream.id == upstream), None)
            if chosen is None:
                raise Refusal(
                    Code.INVALID_REQUEST, "This model has another upstream; open a session of its own for it."
                )
        except Refusal:
            house.settler.put(void(rid, ticket.place, wish, ticket.facts))
            raise
        self._chosen = chosen
        self._leg = Leg(ticket, chosen.upstream)
        house.flights.add(self._leg)
        return ticket.set_cap

    def _settle(self, outcome: str, ended: Ended | None = None) -> None:
        """The response has ended, however it did."""
        leg, self._leg = self._leg, None
        if leg is not None:
            self._house.flights.remove(leg)
            self._house.settler.put(leg.end(outcome, ended))
        self._over.set()

    async def _connect(self, path: str) -> None:
        assert self._chosen is not None
        house = self._house
        self._upstream = await open_socket(
            house.context, self._chosen, self._dialect, path, self._headers, public_only=house.public_only
        )

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
            frame, message = await next_frame(upstream)
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


class RealtimeSession(Session):
    """`/realtime`: frames pass as they are, in both directions."""

    async def run(self) -> None:
        self._kind = kind = Realtime()
        models = parse_qs(self._scope["query_string"].decode("latin-1")).get("model", [])
        await self._identify(kind)
        if len(models) != 1:
            raise Refusal(Code.INVALID_REQUEST, "Name one model in the address: /realtime?model=...", param="model")
        self._asked = kind.ask(models[0])
        await self._hold(kind, self._asked)
        try:
            assert self._chosen is not None
            await self._connect(f"{kind.path}?model={self._chosen.target.model}")
            await self._accept()
            await self._converse()
        finally:
            self._settle("client_left")

    def _ended(self, event: dict[str, Any]) -> Ended | None:
        return self._kind.ended(event)

    async def _from_caller(self) -> None:
        assert self._upstream is not None
        async for frame in frames_of_caller(self._receive):
            await self._upstream.send(frame)

    async def _after(self) -> None:
        """Hold for the next response before the provider can begin it; without cover the session ends."""
        try:
            await self._hold(self._kind, self._asked)
        except Refusal as refusal:
            await self._tell(refusal)
            raise


class ResponsesSession(Session):
    """`/responses`: a frame that asks is a request; what was stored on this very socket may be referred to."""

    async def run(self) -> None:
        self._kind = ResponsesSocket()
        self._own: set[str] = set()
        await self._identify(self._kind)
        await self._accept()
        frames = frames_of_caller(self._receive)
        async for frame in frames:
            if await self._ask(frame):
                break
        try:
            self._frames = frames
            await self._converse()
        finally:
            self._settle("client_left")

    def _ended(self, event: dict[str, Any]) -> Ended | None:
        answered = realtime.answered_id(event)
        if answered is not None:
            self._own.add(answered)
        return self._kind.ended(event)

    async def _from_caller(self) -> None:
        async for frame in self._frames:
            await self._ask(frame)

    async def _ask(self, frame: str | bytes) -> bool:
        """Admit and pass on a frame; whether it went. A refusal is an event, and the session goes on."""
        body = frame.encode() if isinstance(frame, str) else frame
        try:
            if event_of(body).get("type") != "response.create":
                if self._upstream is None:
                    raise Refusal(Code.INVALID_REQUEST, "The first frame must be a response.create.")
                await self._upstream.send(frame)
                return True
            if self._leg is not None:
                raise Refusal(
                    Code.CONCURRENCY_LIMIT_EXCEEDED, "A response is under way on this socket; wait for its end."
                )
            asked = self._read(body)
            cap = await self._hold(self._kind, asked, body)
            assert self._chosen is not None
            if self._upstream is None:
                await self._connect(self._kind.path)
            out = self._kind.write(body, asked, model=self._chosen.target.model, cap=cap)
            assert self._upstream is not None
            await self._upstream.send(out.decode())
        except Refusal as refusal:
            if self._leg is not None and not self._leg.begun and refusal.code is not Code.CONCURRENCY_LIMIT_EXCEEDED:
                self._settle("refused_upstream")
            await self._tell(refusal)
            return False
        return True

    def _read(self, body: bytes) -> Asked:
        try:
            asked = self._kind.ask(body)
        except BadBody as bad:
            raise Refusal(Code.INVALID_REQUEST, str(bad)) from None
        earlier = asked.parsed.get("previous_response_id")
        if asked.stored == "previous_response_id" and earlier in self._own:
            return asked._replace(stored=None, by_reference=True)
        return asked


async def refuse(send: Any, rid: str, refusal: Refusal, dialect: Dialect) -> None:
    """Before the session began: an HTTP answer in the dialect."""
    tally.count(metrics.REFUSALS, refusal.code.word)
    headers = [
        (b"content-type", b"application/json"),
        (b"x-weir-request-id", rid.encode()),
        (b"x-weir-refusal", refusal.code.word.encode()),
    ]
    with contextlib.suppress(Exception):
        await send({"type": "websocket.http.response.start", "status": refusal.code.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": dialect.error_body(refusal, rid)})
