"""What every dialect is made of: endpoints that read a request and write it for the provider, and dialects that speak.

Pure. A request is a `Call`; what it asks for, as far as a quote and a relay need it, is `Asked`; what goes to the
provider is `Outgoing`; and what the answer came to is found by a `Meter` (meter.py).
"""

from typing import Any, Protocol

from gateway.dialects.meter import Meter
from gateway.dialects.secrets import Said
from gateway.refusals import Refusal
from ledger.frozen import Frozen

Headers = list[tuple[bytes, bytes]]


class Call(Frozen, frozen=True):
    """A request as it came. `target` is what its path names beyond the endpoint: Gemini's version and model."""

    body: bytes
    content_type: bytes = b"application/json"
    query: bytes = b""
    target: tuple[str, ...] = ()


class Asked(Frozen, frozen=True):
    """What a request asks for.

    `cap`: the output tokens of one choice that the caller allows, None if they set none. `writes`: whether there are
    output tokens at all. `by_reference`: content whose length the body does not show, so it may be as long as the model
    takes. `searches`: the most hosted searches that are billed one by one. `seconds`: the most seconds of media.
    `variants`: the service tiers, speeds and regions that may serve it; None if any may. `others`: whether the provider may
    choose others as well, of those that the request says nothing of. `capped`: whether Weir may
    set a cap where the caller set none; if not (the endpoint has no field for one), the hold is for the model's maximum
    output of each choice, and nothing is spliced. `needs_cap`: the provider refuses a request without one. `extra_input`:
    input tokens that the provider adds by itself. `sticky`: requests with the same word share a prompt cache.
    """

    model: str
    streamed: bool = False
    cap: int | None = None
    choices: int = 1
    writes: bool = True
    by_reference: bool = False
    searches: int = 0
    seconds: int = 0
    variants: tuple[str, ...] | None = None
    others: bool = False
    stored: str | None = None
    sticky: str | None = None
    hide_usage: bool = False
    capped: bool = True
    needs_cap: bool = False
    extra_input: int = 0
    parsed: Any = None


class Outgoing(Frozen, frozen=True):
    """What the provider is sent: the path below its base URL, with the query, and the body."""

    path: str
    body: bytes


class Operation(Protocol):
    """What an endpoint does, as far as money is concerned."""

    @property
    def name(self) -> str:
        """As API keys' policies and usage events name it, such as `chat.completions`."""

    @property
    def free(self) -> bool:
        """Whether providers do it for nothing (counting tokens); it is admitted, but nothing is held or charged."""


class Endpoint(Operation, Protocol):
    """One operation of a dialect, over HTTP."""

    def read(self, call: Call) -> Asked:
        """What is asked for; BadBody with a message for the caller otherwise."""
        ...

    def write(self, call: Call, asked: Asked, *, model: str, cap: int | None) -> Outgoing:
        """The bytes for the provider: as they came, but for its name of the model, a cap that Weir set, and the usage
        switch.
        """
        ...

    def meter(self, asked: Asked, content_type: bytes) -> Meter:
        """Who reads a copy of an answer of this type."""
        ...


class Dialect(Protocol):
    """How one family of SDKs says who is asking, and how it is told no."""

    @property
    def name(self) -> str: ...

    @property
    def providers(self) -> frozenset[str]:
        """Which providers' upstreams understand it."""

    @property
    def request_id_header(self) -> bytes:
        """Where its SDKs look for a request's id."""

    def secret(self, headers: Said, query: bytes) -> bytes:
        """The caller's API key, wherever the dialect's SDKs put it; empty if there is none."""
        ...

    def credential(self, credential: str) -> Headers:
        """The headers that say to the provider who pays."""
        ...

    def error_body(self, refusal: Refusal, rid: str) -> bytes:
        """A refusal as the SDKs read it."""
        ...

    def error_frame(self, message: str, rid: str) -> bytes:
        """An error in the middle of a stream, as the SDKs raise it; empty if the dialect has none (cut instead)."""
        ...

    def limits(self, kind: str, limit: int, left: int, reset_ms: int, now_s: float) -> Headers:
        """The caller's own rate limit (`kind`: requests or tokens) in the dialect's headers."""
        ...
