"""The two kinds of sessions: realtime, and responses over WebSocket."""

from typing import Any
from urllib.parse import parse_qs

from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection

from gateway.dialects.body import BadBody
from gateway.dialects.openai import realtime
from gateway.dialects.openai.realtime import Ended, Realtime, ResponsesSocket
from gateway.dialects.shape import Asked
from gateway.legs import event_of, frames_of_caller
from gateway.refusals import Code, Refusal
from gateway.session import Session
from gateway.upstream.client import Chosen


async def _nothing(_chosen: Chosen, _upstream: ClientConnection) -> None:
    """In a realtime session the provider speaks first."""


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
            await self._connect(lambda chosen: f"{kind.path}?model={chosen.target.model}", _nothing)
            await self._accept()
            await self._converse()
        finally:
            self._settle("client_left")
            self._dialer.leave()

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
        self._frames = frames_of_caller(self._receive)
        try:
            async for frame in self._frames:
                if await self._ask(frame):
                    break
            await self._converse()
        finally:
            self._settle("client_left")
            self._dialer.leave()

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

            async def say(chosen: Chosen, upstream: ClientConnection) -> None:
                await upstream.send(self._kind.write(body, asked, model=chosen.target.model, cap=cap).decode())

            if self._upstream is None:
                await self._connect(lambda _: self._kind.path, say)
            else:
                assert self._chosen is not None
                await say(self._chosen, self._upstream)
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
            return replace(asked, stored=None, by_reference=True)
        return asked
