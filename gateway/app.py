"""The composition of one gateway worker: what is made, in which order, and in which order it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.routing import Route, Router

from gateway import surface
from gateway.admission import Admission
from gateway.catalogues import Catalogues
from gateway.flights import Flights
from gateway.own_routes import OwnRoutes, unknown_path
from gateway.proxy import Proxy
from gateway.session import Services
from gateway.sessions import Sessions
from gateway.settler import Settler
from gateway.spill import Spill
from gateway.upstream.client import Upstreams, make_sender, trusting
from gateway.upstream.pools import Pools
from ledger import keyspace, log, tally
from ledger.connect import connect
from ledger.link import StoreUnavailable
from ledger.settings import Settings
from ledger.vault import Vault, VaultError

REDIS_DEADLINE_S = 1.0
_SETTLE_WITHIN_S = 10.0


class Gateway:
    """The application and what it owns."""

    def __init__(self, settings: Settings, *, on_ready: Callable[[], None] = lambda: None) -> None:
        assert settings.master_key is not None
        self._settings = settings
        self._on_ready = on_ready
        self._redis = connect(settings.redis_url, deadline_s=REDIS_DEADLINE_S, name="weir-gateway")
        self._catalogues = Catalogues(self._redis, Vault(settings.master_key, settings.master_key_previous))
        public_only = not settings.allow_private_upstreams
        context = trusting(settings.upstream_ca_file)
        self._sender = make_sender(settings.upstream_transport, context, public_only=public_only)
        # WAIT blocks its connection, so barriers have one of their own.
        self._barriers = connect(settings.redis_url, deadline_s=REDIS_DEADLINE_S, name="weir-barrier")
        self._settler = Settler(
            self._redis, spill=Spill(settings.spill_dir), replicas=settings.replicas, barriers=self._barriers
        )
        self._flights = Flights(self._redis)
        admission = Admission(self._redis, self._catalogues, backlog_bound=settings.backlog_bound)
        self._pools = Pools(Upstreams(self._sender), share=settings.workers * settings.gateways)
        self._proxy = Proxy(admission, self._pools, self._settler, self._flights, drain_s=settings.drain_s)
        services = Services(
            admission, self._pools, context, self._settler, self._flights, settings.drain_s, public_only
        )
        self._sessions = Sessions(services)
        self.own = OwnRoutes(self._redis, admission, self._catalogues)
        # Starlette's router without its two error middlewares: the path answers for its own errors, and they cost 8 %.
        self._router = Router(
            routes=[
                Route("/weir/v1/balance", self.own.balance),
                Route("/weir/v1/models", self.own.own_models),
                Route("/healthz", self.own.healthz),
                Route("/readyz", self.own.readyz),
            ],
            default=unknown_path,
            redirect_slashes=False,
            lifespan=self._lifespan,
        )

    def __call__(self, scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
        """The ASGI application: what is forwarded first, by one look at its path, then Weir's own paths."""
        if scope["type"] == "http":
            served = surface.find(scope)
            if served is None:
                return self._router(scope, receive, send)
            if served.endpoint is None:
                return self.own.models(served, scope, receive, send)
            return self._proxy(served, scope, receive, send)
        if scope["type"] == "websocket" and (found := surface.find_socket(scope)) is not None:
            return self._sessions(*found, scope, receive, send)
        return self._router(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Router) -> AsyncIterator[None]:
        async with self._redis, self._barriers, contextlib.aclosing(self._sender):
            self._settler.start()
            loading = asyncio.create_task(self._load())
            renewing = asyncio.create_task(self._flights.renew_for_ever())
            counting = asyncio.create_task(tally.flush_for_ever())
            looking = asyncio.create_task(self._pools.look_for_ever())
            try:
                yield
            finally:
                # uvicorn has ended or cancelled every request by now: let each reach its end, and bring the charges home.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SETTLE_WITHIN_S):
                        await self._proxy.idle()
                        await self._sessions.idle()
                left = await self._settler.close(_SETTLE_WITHIN_S)
                if left:
                    log.get().error("settles_left_on_disk", count=left)
                for task in (loading, renewing, counting, looking):
                    task.cancel()
                tally.flush()

    async def _load(self) -> None:
        """Wait for a catalogue, then say that we serve."""
        while True:
            with contextlib.suppress(StoreUnavailable):
                try:
                    opened = await self._catalogues.refresh(keyspace.PARTITIONS[0])
                except VaultError as error:
                    log.get().error("catalogue_not_opened", where=str(error))
                    opened = None
                if opened is not None:
                    self._on_ready()
                    return
            await asyncio.sleep(0.05)
