"""Weir's own answers: a caller's balance and models, health, and a clear no for every other path."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway import admission, refusals
from gateway.admission import Admission
from gateway.catalogues import Catalogues, Snapshot
from gateway.headers import bearer
from gateway.proxy import refuse
from gateway.refusals import Code, Refusal
from ledger import request_id
from ledger.link import Caller, StoreUnavailable
from ledger.money import format_usd


class OwnRoutes:
    """Handlers that need the store or the catalogue."""

    def __init__(self, redis: Caller, admits: Admission, catalogues: Catalogues) -> None:
        self._redis = redis
        self._admits = admits
        self._catalogues = catalogues
        self.draining = False

    async def balance(self, request: Request) -> Response:
        """What the key's account has: credited, spent, held and available."""
        try:
            snapshot = await self._identify(request, "balance")
            numbers = await admission.balance(self._redis, snapshot.place)
        except Refusal as refusal:
            return _refused(refusal)
        except StoreUnavailable:
            return _refused(Refusal(Code.TEMPORARILY_UNAVAILABLE, "Please try again.", retry_after_s=1))
        named = dict(zip(("credited", "spent", "held", "available"), numbers, strict=True))
        fields: dict[str, Any] = {f"{name}_nanos": value for name, value in named.items()}
        return JSONResponse(fields | {f"{name}_usd": format_usd(value) for name, value in named.items()})

    async def models(self, request: Request) -> Response:
        """The models that the key may use, in OpenAI's shape."""
        try:
            snapshot = await self._identify(request, "models")
        except Refusal as refusal:
            return _refused(refusal)
        allowed = snapshot.key_policy.models
        names = self._catalogues.now.book.models if self._catalogues.now else {}
        listed = sorted(name for name in names if not allowed or name in allowed)
        items = [{"id": name, "object": "model", "created": 0, "owned_by": "weir"} for name in listed]
        return JSONResponse({"object": "list", "data": items})

    async def healthz(self, _request: Request) -> Response:
        """This process runs."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, _request: Request) -> Response:
        """This process can serve: it is not draining, has a catalogue, and Redis answers."""
        why = "draining" if self.draining else "no catalogue yet" if self._catalogues.now is None else ""
        if not why:
            try:
                await self._redis.command("PING")
            except StoreUnavailable:
                why = "Redis does not answer"
        return JSONResponse({"status": why or "ready"}, status_code=503 if why else 200)

    async def _identify(self, request: Request, endpoint: str) -> Snapshot:
        address = request.client.host if request.client else ""
        return await self._admits.identify_now(bearer(request.headers.raw), address, endpoint)


async def unknown_path(scope: Any, _receive: Any, send: Any) -> None:
    """Every path that is not served, whatever it looks like."""
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": 1000})
        return
    await refuse(send, request_id.new(), refusals.unknown_path())


def _refused(refusal: Refusal) -> Response:
    body = {"error": {"message": refusal.message, "code": refusal.code.word, "type": "weir", "param": None}}
    headers = {"x-weir-refusal": refusal.code.word, "x-weir-request-id": request_id.new()}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = "1"
    return Response(orjson.dumps(body), refusal.code.status, headers, "application/json")
