"""What the gateway knows of a request when it ends.

Redis adds what only it knows (end, charge, shortfall, spent, epoch, seq, time) as stream fields and never looks inside.
No field can hold content: each is a number, a flag, or a name that Weir or the operator chose.
"""

from collections.abc import Callable

import msgspec


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway knows of a request when it ends, or, in an abandoned one, knew when it began.

    `markup_ppm`: the factor of the account's plan on the price, in millionths; 0 for an endpoint that costs nothing. With
    it, the price version and the usage, anyone can compute the charge again (repricing.py). `model` is the one that was
    asked for; where another one served in its place, that is `fallback_model`, and the price version is its. `served_model`
    is what the provider says.
    """

    account: str
    api_key: str
    model: str
    dialect: str
    endpoint: str
    price_version: int
    streamed: bool
    markup_ppm: int = 1_000_000
    admitted_us: int = 0
    outcome: str = "timed_out"
    served_model: str | None = None
    provider: str | None = None
    upstream: str | None = None
    status: int | None = None
    estimated: bool = False
    usage: dict[str, int | str] = {}
    quote_nanos: int = 0
    latency_ms: int | None = None
    ttft_ms: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    free: bool = False
    fallback_model: str | None = None


_encoder = msgspec.json.Encoder()

encode: Callable[[Facts], bytes] = _encoder.encode
"""The event's opaque part, as it travels through Redis."""

encode_any: Callable[[object], bytes] = _encoder.encode
"""A settlement as a claim: the same encoding as an event's."""
