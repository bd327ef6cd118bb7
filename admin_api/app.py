"""The admin API's composition: routes, errors as problems, and the door in front of them."""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from admin_api import accounts, api_keys, grants, models, plans, price_book, problems, statements, upstreams, usage
from admin_api.auth import Door
from admin_api.problems import MONGO_AWAY, REDIS_AWAY
from admin_api.stores import Stores, StoresDep
from ledger import __version__
from ledger.cold import ColdBook
from ledger.link import Caller
from ledger.settings import Settings
from ledger.vault import Vault

_bearer = HTTPBearer(auto_error=False, description="the owner token, WEIR_ADMIN_TOKEN")


async def _documented(_: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]) -> None:
    """The Door decides; this puts the scheme into the OpenAPI document."""


def create_app(settings: Settings, cold: ColdBook, redis: Caller, vault: Vault) -> FastAPI:
    """The app on stores that are open already, and that whoever opened them closes (`serve`, or a test)."""
    app = FastAPI(title="Weir admin API", version=__version__, redoc_url=None)
    app.state.stores = Stores(settings, cold, redis, vault)
    problems.install(app)
    for part in (accounts, grants, api_keys, upstreams, models, price_book, plans, usage, statements):
        app.include_router(part.router, dependencies=[Security(_documented)], responses=_PROBLEMS)
    app.add_api_route("/healthz", healthz, include_in_schema=False)
    app.add_api_route("/readyz", readyz, include_in_schema=False)
    app.add_middleware(Door, owner_token=settings.admin_token)
    return app


async def healthz() -> dict[str, str]:
    """The process serves; says nothing of the stores."""
    return {"status": "ok"}


async def readyz(stores: StoresDep) -> JSONResponse:
    """Whether both stores answer; 503 names the one that does not."""
    redis, mongo = await asyncio.gather(
        stores.redis.command("PING"), stores.cold.client.admin.command("ping"), return_exceptions=True
    )
    for answer in (redis, mongo):
        if isinstance(answer, BaseException) and not isinstance(answer, (*REDIS_AWAY, *MONGO_AWAY)):
            raise answer
    state = {"redis": _word(redis), "mongodb": _word(mongo)}
    return JSONResponse(state, 200 if set(state.values()) == {"ok"} else 503)


def _word(answer: Any) -> str:
    return "away" if isinstance(answer, BaseException) else "ok"


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "a problem (RFC 9457)", "content": {"application/problem+json": {}}},
    503: {"description": "a problem; `pending` if the change is written", "content": {"application/problem+json": {}}},
}
