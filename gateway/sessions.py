"""Every session of a worker: which kind it is, how it is refused, and how the last one is waited for."""

import asyncio
import contextlib
from typing import Any

from gateway import metrics
from gateway.dialects.openai.realtime import Realtime, ResponsesSocket
from gateway.dialects.shape import Dialect
from gateway.legs import CallerLeft, close_both
from gateway.refusals import Refusal
from gateway.session import WENT_WRONG, Services
from gateway.session_kinds import RealtimeSession, ResponsesSession
from ledger import log, request_id, tally


class Sessions:
    """The sessions that are open."""

    def __init__(self, services: Services) -> None:
        self._services = services
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
            await session(self._services, dialect, scope, receive, send, rid).run()
        except Refusal as refusal:
            await refuse(send, rid, refusal, dialect)
        except CallerLeft:
            tally.count(metrics.REFUSALS, "client_left")
        except Exception as error:  # noqa: BLE001 - our bug; the caller gets an end and the log its place
            log.get().error("session_failed", rid=rid, exc=error)
            await close_both(None, send, WENT_WRONG, "")
        finally:
            self._open.discard(task)


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
