"""The catalogue: an immutable, numbered picture of models, prices, upstreams and peppers, as the gateway reads it.

It is built from MongoDB, stored once in Redis under its version, and put in force per partition (`publish`). Credentials
and peppers in it are sealed (`vault`); only a gateway with the master key opens them, in memory.
"""

import msgspec

from ledger.price_record import Price

FAMILIES = {
    "openai": "openai",
    "xai": "openai",
    "openai_compatible": "openai",
    "anthropic": "anthropic",
    "gemini": "gemini",
}
"""Which dialect each provider speaks."""


class UpstreamLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What all gateways together may send to one upstream; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


class Upstream(msgspec.Struct, frozen=True):
    """One provider endpoint with one credential."""

    id: str
    name: str
    provider: str
    base_url: str
    credential: str
    on_client_left: str = "drain"
    weight: int = 1
    priority: int = 0
    region: str = ""
    first_byte_timeout_s: float | None = None
    limits: UpstreamLimits = UpstreamLimits()


class Target(msgspec.Struct, frozen=True):
    """Where a model is served: an upstream, and the model's name there."""

    upstream: str
    model: str


class Model(msgspec.Struct, frozen=True):
    """A public name, what it costs, and where it is served.

    `fallbacks`: models that serve in its place, in this order, while none of its upstreams can.
    `queue_size` requests may wait, each for at most `queue_timeout_s`, while every upstream is at its limit.
    """

    name: str
    targets: tuple[Target, ...]
    price: Price
    max_output_tokens: int
    max_input_tokens: int
    reasons: bool = False
    allow_stored: bool = False
    fallbacks: tuple[str, ...] = ()
    queue_size: int = 0
    queue_timeout_s: float = 0.0


class Catalogue(msgspec.Struct, frozen=True):
    """Everything of one config version."""

    version: int
    models: dict[str, Model]
    upstreams: dict[str, Upstream]
    peppers: dict[str, str]


def encode(catalogue: Catalogue) -> bytes:
    return msgspec.json.encode(catalogue, order="sorted")


def decode(text: bytes) -> Catalogue:
    """The catalogue of these bytes; msgspec.ValidationError if another release wrote something unreadable."""
    return msgspec.json.decode(text, type=Catalogue)


def credential_purpose(upstream_id: str) -> str:
    return f"upstreams/{upstream_id}/credential"


def pepper_purpose(version: str) -> str:
    return f"peppers/{version}/pepper"
