"""Weir's own answers: a caller's balance and models, health, and a clear no for every other path."""

import math
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway import admission, standins, surface
from gateway.admission import Admission
from gateway.catalogues import Catalogues, Snapshot
from gateway.dialects import listing
from gateway.dialects.secrets import said
from gateway.dialects.shape import Dialect
from gateway.proxy import refuse
from gateway.refusals import Code, Refusal, unavailable
from gateway.surface import OPENAI, Served
from ledger import request_id
from ledger.catalogue import Model
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
            snapshot = await self._identify(request.scope, OPENAI, "balance")
            numbers = await admission.balance(self._redis, snapshot.place)
        except Refusal as refusal:
            return refused(refusal, OPENAI)
        except StoreUnavailable:
            return refused(unavailable(), OPENAI)
        named = dict(zip(("credited", "spent", "held", "available"), numbers, strict=True))
        fields: dict[str, Any] = {f"{name}_nanos": value for name, value in named.items()}
        return JSONResponse(fields | {f"{name}_usd": format_usd(value) for name, value in named.items()})

    async def own_models(self, request: Request) -> Response:
        """The models that the key may use, in every dialect, in OpenAI's shape."""
        try:
            snapshot = await self._identify(request.scope, OPENAI, surface.MODELS)
        except Refusal as refusal:
            return refused(refusal, OPENAI)
        return JSONResponse(listing.openai(self._models(snapshot, None)))

    async def models(self, served: Served, scope: Any, receive: Any, send: Any) -> None:
        """The models that the key may use in this dialect, in its shape; or one of them."""
        dialect, name = served.dialect, served.target[1]
        try:
            if scope["method"] != "GET":
                raise Refusal(Code.METHOD_NOT_ALLOWED, "This path takes GET only.")
            found = self._models(await self._identify(scope, dialect, surface.MODELS), dialect)
            if not name:
                answer: Response = JSONResponse(listing.MANY[dialect.name](found))
            else:
                answer = JSONResponse(listing.ONE[dialect.name](_one_of(found, name)))
        except Refusal as refusal:
            answer = refused(refusal, dialect)
        for header, value in _named(dialect, request_id.new()).items():
            answer.headers.setdefault(header, value)
        await answer(scope, receive, send)

    def _models(self, snapshot: Snapshot, dialect: Dialect | None) -> list[Model]:
        opened, allowed = self._catalogues.now, snapshot.key_policy.models
        if opened is None:
            return []
        return [
            model
            for name, model in sorted(opened.book.models.items())
            if (not allowed or name in allowed) and (dialect is None or standins.speaks(opened, model, dialect))
        ]

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

    async def _identify(self, scope: Any, dialect: Dialect, endpoint: str) -> Snapshot:
        address = scope["client"][0] if scope["client"] else ""
        secret = dialect.secret(said(scope["headers"]), scope["query_string"])
        return await self._admits.identify_now(secret, address, endpoint)


def _named(dialect: Dialect, rid: str) -> dict[str, str]:
    """A request's id, for Weir and where the dialect's SDKs look."""
    return {"x-weir-request-id": rid, dialect.request_id_header.decode(): rid}


def _one_of(models: list[Model], name: str) -> Model:
    for model in models:
        if model.name == name.removeprefix("models/"):
            return model
    raise Refusal(Code.MODEL_NOT_FOUND, "No model of this name is served to this API key.", param="model")


async def unknown_path(scope: Any, _receive: Any, send: Any) -> None:
    """Every path that is not served, whatever it looks like."""
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": 1000})
        return
    await refuse(send, request_id.new(), surface.unknown(scope), surface.dialect_of(scope))


def refused(refusal: Refusal, dialect: Dialect) -> Response:
    """A refusal as a response of Starlette's."""
    rid = request_id.new()
    headers = {"x-weir-refusal": refusal.code.word, **_named(dialect, rid)}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(max(math.ceil(refusal.retry_after_s), 1))
    return Response(dialect.error_body(refusal, rid), refusal.code.status, headers, "application/json")
