"""What an API key and an account may do, as published to Redis and held by the gateway for as long as it is in force."""

import msgspec


class KeyPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Limits of use beside the counted ones; an empty tuple allows everything."""

    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


class AccountPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`markup_ppm`: the factor on every price in millionths; `on_abandoned`: what a lost request is charged at least;
    `fit_to_balance`: whether an output cap that the balance does not cover is lowered instead of refused.
    """

    markup_ppm: int = 1_000_000
    on_abandoned: str = "release"
    fit_to_balance: bool = False


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counted limits; None is no limit. Requests and tokens are per minute, caps are nano-USD per UTC day and month."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    daily_cap_nanos: int | None = None
    monthly_cap_nanos: int | None = None

    def fields(self) -> dict[str, str]:
        """As Redis fields; '' removes one that no longer applies."""
        named = zip(("rpm", "tpm", "conc", "dcap", "mcap"), msgspec.structs.astuple(self), strict=True)
        return {name: "" if value is None else str(value) for name, value in named}


class KeyRecord(msgspec.Struct, frozen=True):
    """An API key as Redis keeps it."""

    digest: str
    pepper: str
    account: str
    line: str
    status: str
    policy: KeyPolicy
    limits: Limits
    expires_us: int | None = None

    def fields(self) -> dict[str, str]:
        expires = "" if self.expires_us is None else str(self.expires_us)
        return {
            "digest": self.digest,
            "pepper": self.pepper,
            "acct": self.account,
            "line": self.line,
            "status": self.status,
            "exp": expires,
            "policy": msgspec.json.encode(self.policy).decode(),
            **self.limits.fields(),
        }


class AccountRecord(msgspec.Struct, frozen=True):
    """An account's policy and status as Redis keeps it beside the balance."""

    status: str
    policy: AccountPolicy
    limits: Limits
    free_requests: int = 0

    def fields(self) -> dict[str, str]:
        limits = self.limits.fields()
        del limits["dcap"], limits["mcap"]
        return {
            "status": self.status,
            "policy": msgspec.json.encode(self.policy).decode(),
            "free": str(self.free_requests or ""),
            **limits,
        }


def key_policy(text: bytes) -> KeyPolicy:
    return msgspec.json.decode(text, type=KeyPolicy)


def account_policy(text: bytes) -> AccountPolicy:
    return msgspec.json.decode(text, type=AccountPolicy)
