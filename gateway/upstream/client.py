"""Asking an upstream: where, as whom, and what it means when it does not answer."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

import httpx2

from gateway import metrics
from gateway.dialects.shape import Dialect, Outgoing
from gateway.headers import Headers, to_upstream
from gateway.refusals import Code, Refusal, unavailable
from gateway.upstream.transport import Endpoint, FastTransport, Timeouts
from ledger import log, tally
from ledger.addresses import checked, is_public, upstream_url
from ledger.catalogue import Target, Upstream

CONNECT_TIMEOUT_S = 5.0
# A reasoning model can think for minutes before its first byte, and SDKs wait 600 s a read (wire.md 5).
READ_TIMEOUT_S = 600.0
_CONNECTIONS = 2_000
_ENDPOINTS = 4_096
_closing: set[asyncio.Future[None]] = set()  # a task that nobody knows may be collected


class Answer(Protocol):
    """An upstream's answer, its body still to be read; httpx2.TransportError if it breaks off."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]: ...

    @property
    def begun(self) -> bool:
        """Whether something of it is there to be taken, as far as is known without asking."""
        ...

    @property
    def complete(self) -> bool:
        """Whether all of it has come, as far as is known before its end is asked for."""
        ...

    async def next_chunk(self) -> bytes:
        """All that has come since; empty at the end."""
        ...

    async def relay(self, take: Callable[[bytes], bool]) -> bool:
        """Give each piece to `take` until it says no, or there is no more; whether there may be more."""
        ...

    def drop(self) -> None:
        """Close it, without waiting until that is done."""
        ...


class Sender(Protocol):
    """A transport, as far as the request path needs one."""

    def post(self, url: str, headers: Headers, body: bytes) -> Coroutine[Any, Any, Answer]: ...

    async def aclose(self) -> None: ...


class FastSender:
    """The transport of the hot path (docs/performance.md)."""

    def __init__(self, context: ssl.SSLContext, *, public_only: bool) -> None:
        allow = is_public if public_only else None
        self._transport = FastTransport(context, max_connections=_CONNECTIONS, allow_address=allow)
        self._endpoints: dict[str, Endpoint] = {}
        self._timeouts = Timeouts(CONNECT_TIMEOUT_S, READ_TIMEOUT_S, READ_TIMEOUT_S, CONNECT_TIMEOUT_S)

    def post(self, url: str, headers: Headers, body: bytes) -> Coroutine[Any, Any, Answer]:
        endpoint = self._endpoints.get(url)
        if endpoint is None:
            if len(self._endpoints) >= _ENDPOINTS:
                self._endpoints.clear()
            endpoint = self._endpoints[url] = Endpoint(url, "POST")
        return self._transport.send(endpoint, headers, body, self._timeouts)

    async def aclose(self) -> None:
        await self._transport.aclose()


class StockSender:
    """httpx2's own transport, for whoever wants to rule ours out (WEIR_UPSTREAM_TRANSPORT=httpx2)."""

    def __init__(self, context: ssl.SSLContext, *, public_only: bool) -> None:
        self._public_only = public_only
        limits = httpx2.Limits(
            max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS, keepalive_expiry=4.0
        )
        self._transport = httpx2.AsyncHTTPTransport(verify=context, limits=limits, trust_env=False)
        read, connect = READ_TIMEOUT_S, CONNECT_TIMEOUT_S
        self._extensions = {"timeout": {"connect": connect, "pool": connect, "read": read, "write": read}}

    async def post(self, url: str, headers: Headers, body: bytes) -> Answer:
        if self._public_only:
            try:
                await checked(url)
            except OSError as error:
                raise httpx2.ConnectError("The upstream's address is not allowed.") from error
        request = httpx2.Request("POST", url, headers=list(headers), content=body, extensions=self._extensions)
        return _StockAnswer(await self._transport.handle_async_request(request))

    async def aclose(self) -> None:
        await self._transport.aclose()


class _StockAnswer:
    begun = False
    complete = False

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._chunks: Any = response.stream.__aiter__()  # type: ignore[union-attr]
        self.status = response.status_code
        self.headers = [(name.lower(), value) for name, value in response.headers.raw]

    async def next_chunk(self) -> bytes:
        while (chunk := await anext(self._chunks, None)) is not None:
            if chunk:
                return bytes(chunk)
        return b""

    async def relay(self, take: Callable[[bytes], bool]) -> bool:
        while chunk := await self.next_chunk():
            if not take(chunk):
                return True
        return False

    def drop(self) -> None:
        closing = asyncio.ensure_future(self._response.aclose())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)


def trusting(ca_file: str) -> ssl.SSLContext:
    """Verified TLS with the system's roots, and with those in `ca_file` if it is given."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def make_sender(kind: str, context: ssl.SSLContext, *, public_only: bool) -> Sender:
    """The transport of this name, `fast` or `httpx2`: HTTP/1.1, keep-alive, verified TLS, no proxies, no redirects.

    `public_only`: a name that leads to a private, loopback or otherwise special address is not connected to. Ours connects
    to the address that it has checked; the stock one looks the name up again by itself.
    """
    return (
        FastSender(context, public_only=public_only)
        if kind == "fast"
        else StockSender(context, public_only=public_only)
    )


class Spot(NamedTuple):
    """A model at an upstream."""

    upstream: str
    model: str


class Chosen(NamedTuple):
    """Where a request goes. `model`: the public name of the model that serves it there; `spot`: what is kept of it there."""

    upstream: Upstream
    target: Target
    credential: str
    model: str = ""
    spot: Spot | None = None


class Upstreams:
    """Sends requests; every failure before the first byte is a Refusal that costs the caller nothing."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def ask(
        self, chosen: Chosen, dialect: Dialect, headers: Headers, outgoing: Outgoing, *, form: bool = False
    ) -> Answer:
        """The upstream's answer, its body still to be read. `form`: the body is a multipart form, not JSON."""
        name = chosen.upstream.name
        url = upstream_url(chosen.upstream.provider, chosen.upstream.base_url, outgoing.path)
        sent = to_upstream(headers, dialect.credential(chosen.credential), form=form)
        try:
            answer = await self._sender.post(url, sent, outgoing.body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            self.failed(name, "connect", error)
            raise unavailable("The upstream does not answer at the moment; please try again.") from None
        except httpx2.TransportError as error:
            self.failed(name, "broke", error)
            message = "The upstream broke off before it answered; please try again."
            raise Refusal(Code.UPSTREAM_ERROR, message, retry_after_s=1) from None
        tally.count(metrics.UPSTREAM_REQUESTS, name, str(answer.status))
        return answer

    @staticmethod
    def failed(name: str, status: str, error: Exception | None = None) -> None:
        """An upstream did not answer: `status` says how, in one word."""
        tally.count(metrics.UPSTREAM_REQUESTS, name, status)
        log.get().warning("upstream_failed", upstream=name, status=status, exc=error)
