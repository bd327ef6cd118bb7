"""Reading a request in from the caller: bounded in bytes, in time, and in what a whole worker buffers."""

from typing import Any

from gateway.cutoff import Cutoff
from gateway.cycle import Cycle
from gateway.refusals import Code, Refusal, unavailable

MAX_BODY = 32 * 1024 * 1024
MAX_BUFFERED = 512 * 1024 * 1024
BODY_WITHIN_S = 60.0


class ClientLeft(Exception):
    """The caller hung up before the request was whole; nobody is owed an answer."""


class Weight:
    """What one body counts against the bound, until it is dropped."""

    __slots__ = ("_intake", "_size")

    def __init__(self, intake: "Intake", size: int) -> None:
        self._intake = intake
        self._size = size

    def drop(self) -> None:
        """The body is not needed any more. Again is nothing."""
        size, self._size = self._size, 0
        self._intake.release(size)


class Intake:
    """Bounds the bytes of bodies that this worker holds at once."""

    def __init__(self, *, most: int = MAX_BUFFERED) -> None:
        self._most = most
        self.buffered = 0

    def take(self, cycle: Cycle) -> bytes | None:
        """The whole body if it is there already; otherwise `read` it."""
        body = cycle.take_body()
        if body is not None:
            self.buffered += len(body)
            if self.buffered > self._most:
                self.release(len(body))
                raise unavailable()
        return body

    async def read(self, receive: Any) -> bytes:
        """The whole body; its Weight is to be dropped when it is not needed any more."""
        parts: list[bytes] = []
        size = 0
        try:
            with Cutoff() as cutoff:
                cutoff.within(BODY_WITHIN_S)
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeft
                    part = message.get("body", b"")
                    size += len(part)
                    self.buffered += len(part)
                    if size > MAX_BODY:
                        raise Refusal(Code.REQUEST_TOO_LARGE, f"The body is larger than {MAX_BODY} bytes.")
                    if self.buffered > self._most:
                        raise unavailable()
                    parts.append(part)
                    if not message.get("more_body", False):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            self.release(size)
            raise Refusal(Code.REQUEST_TIMEOUT, f"The body did not arrive within {BODY_WITHIN_S:g} s.") from None
        except BaseException:
            self.release(size)
            raise

    def release(self, size: int) -> None:
        self.buffered -= size
