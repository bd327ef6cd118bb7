"""The door: who is asking, and how much they may send, decided before a byte of the body is read or parsed.

A raw ASGI layer and no FastAPI dependency, because FastAPI parses the body first: a stranger would learn whether it was
JSON, and could fill memory.
"""

import hmac
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin_api.problems import internal, problem_response

MAX_BODY_BYTES = 1_000_000
OPEN_TO_ALL = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect"})


class Door:
    """Lets the owner's token in, caps bodies, forbids caches, and answers what nobody else caught."""

    def __init__(self, app: ASGIApp, owner_token: str) -> None:
        assert owner_token
        self._app = app
        self._owner = _fingerprint(owner_token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The path as it is routed: `request.url` is made with the Host header, which the stranger writes.
        if scope["path"] not in OPEN_TO_ALL and not self._is_owner(Headers(scope=scope)):
            refusal = problem_response(
                401, "unauthorized", "send the owner token: `Authorization: Bearer ...`", headers=_CHALLENGE
            )
            await refusal(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await self._app(scope, _capped(receive), answer)
        except Exception as error:  # noqa: BLE001  the last net: uvicorn would log the message, which may quote input
            if answer.begun:
                raise RuntimeError(type(error).__name__) from None
            await internal(error)(scope, receive, send)

    def _is_owner(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = _fingerprint(token.strip().encode("latin-1"))
        return scheme.lower() == "bearer" and hmac.compare_digest(given, self._owner)


_CHALLENGE = {"www-authenticate": "Bearer"}


def _fingerprint(token: bytes) -> bytes:
    """Equal lengths for the comparison, so that its time tells nothing of the token's."""
    return hmac.digest(b"weir owner token", token, "sha256")


class _Answer:
    """Sends on, remembers whether the answer has begun, and keeps it out of caches: it may hold a key."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            message = {**message, "headers": [*message["headers"], (b"cache-control", b"no-store")]}
        await self._send(message)


def _capped(receive: Receive) -> Callable[[], Awaitable[Message]]:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            # The one kind of exception that FastAPI lets through while it reads a body.
            raise HTTPException(413, f"a body may have at most {MAX_BODY_BYTES} bytes")
        return message

    return bounded
