"""Asking an upstream: where, as whom, and what it means when it does not answer."""

import ssl
from typing import NamedTuple

import httpx2

from gateway import metrics
from gateway.catalogues import Opened
from gateway.headers import Headers, to_upstream
from gateway.refusals import Code, Refusal, unavailable
from ledger import log
from ledger.catalogue import Model, Target, Upstream

CONNECT_TIMEOUT_S = 5.0
# A reasoning model can think for minutes before its first byte, and SDKs wait 600 s a read (wire.md 5).
READ_TIMEOUT_S = 600.0
_CONNECTIONS = 2_000


class Chosen(NamedTuple):
    """Where a request goes."""

    upstream: Upstream
    target: Target
    credential: str


def make_transport(ca_file: str) -> httpx2.AsyncBaseTransport:
    """The stock transport: HTTP/1.1, keep-alive, verified TLS, no proxies and no redirects."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    limits = httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS, keepalive_expiry=4.0)
    return httpx2.AsyncHTTPTransport(verify=context, limits=limits, trust_env=False)


def choose(model: Model, opened: Opened) -> Chosen:
    """The model's first upstream; more than one is the business of pools."""
    for target in model.targets:
        upstream = opened.book.upstreams.get(target.upstream)
        if upstream is not None:
            return Chosen(upstream, target, opened.credentials[upstream.id])
    raise unavailable("No upstream serves this model at the moment; please try again.")


class Upstreams:
    """Sends requests; every failure before the first byte is a Refusal that costs the caller nothing."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def ask(self, chosen: Chosen, path: str, headers: Headers, body: bytes) -> httpx2.Response:
        """The upstream's answer, its body still to be read."""
        request = httpx2.Request(
            "POST",
            chosen.upstream.base_url.rstrip("/") + path,
            headers=to_upstream(headers, chosen.credential),
            content=body,
            extensions={
                "timeout": {
                    "connect": CONNECT_TIMEOUT_S,
                    "pool": CONNECT_TIMEOUT_S,
                    "read": READ_TIMEOUT_S,
                    "write": READ_TIMEOUT_S,
                }
            },
        )
        name = chosen.upstream.name
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            self._failed(name, "connect", error)
            raise unavailable("The upstream does not answer at the moment; please try again.") from None
        except httpx2.TransportError as error:
            self._failed(name, "broke", error)
            message = "The upstream broke off before it answered; please try again."
            raise Refusal(Code.UPSTREAM_ERROR, message, retry_after_s=1) from None
        metrics.UPSTREAM_REQUESTS.labels(name, str(response.status_code)).inc()
        return response

    @staticmethod
    def _failed(name: str, status: str, error: Exception) -> None:
        metrics.UPSTREAM_REQUESTS.labels(name, status).inc()
        log.get().warning("upstream_failed", upstream=name, status=status, exc=error)
