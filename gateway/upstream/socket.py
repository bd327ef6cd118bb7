"""WebSocket connections to providers: verified TLS, no redirects, no proxies, bounded frames."""

import ssl
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

from gateway import metrics
from gateway.dialects.shape import Dialect
from gateway.headers import Headers, to_upstream
from gateway.refusals import Code, Refusal, unavailable
from gateway.upstream.client import CONNECT_TIMEOUT_S, Chosen
from ledger import log, tally
from ledger.addresses import checked, upstream_url

MAX_FRAME = 32 * 1024 * 1024
_SWITCHED = 101


class NotSwitched(Refusal):
    """The upstream answered with a status instead of a session."""

    def __init__(self, status: int, headers: Headers) -> None:
        super().__init__(Code.UPSTREAM_ERROR, f"The upstream refused the session with status {status}.")
        self.status = status
        self.headers = headers


class _Connect(connect):
    """A provider's address is the operator's to say: nobody is followed elsewhere with the operator's credential."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def open_socket(
    context: ssl.SSLContext, chosen: Chosen, dialect: Dialect, path: str, headers: Headers, *, public_only: bool
) -> ClientConnection:
    """A connection that is ready; every failure is a Refusal that costs the caller nothing.

    `public_only`: to the address that was checked, and to none that is not public.
    """
    url = "ws" + upstream_url(chosen.upstream.provider, chosen.upstream.base_url, path).removeprefix("http")
    sent = to_upstream(headers, dialect.credential(chosen.credential))
    options: dict[str, Any] = {"ssl": context} if url.startswith("wss:") else {}
    name = chosen.upstream.name
    try:
        if public_only:
            options["host"] = await checked(url)
        made = await _Connect(
            url,
            additional_headers=[(n.decode("latin-1"), v.decode("latin-1")) for n, v in sent if n != b"accept-encoding"],
            user_agent_header=None,
            compression=None,
            proxy=None,
            open_timeout=CONNECT_TIMEOUT_S,
            max_size=MAX_FRAME,
            **options,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        tally.count(metrics.UPSTREAM_REQUESTS, name, str(status))
        log.get().error("upstream_refused", upstream=name, status=status)
        said = [(name.lower().encode(), value.encode("latin-1")) for name, value in error.response.headers.raw_items()]
        raise NotSwitched(status, said) from None
    except (OSError, TimeoutError, InvalidHandshake) as error:
        tally.count(metrics.UPSTREAM_REQUESTS, name, "connect")
        log.get().warning("upstream_failed", upstream=name, status="connect", exc=error)
        raise unavailable("The upstream does not answer at the moment; please try again.") from None
    tally.count(metrics.UPSTREAM_REQUESTS, name, str(_SWITCHED))
    return made
