"""Why Weir itself refuses: one closed list of codes, each with its status (interfaces.md, Gateway)."""

from enum import Enum


class Code(Enum):
    """A refusal's code and HTTP status. The code is what `x-weir-refusal` and the metrics say, in every dialect."""

    INVALID_API_KEY = ("invalid_api_key", 401)
    ACCOUNT_SUSPENDED = ("account_suspended", 403)
    NETWORK_NOT_ALLOWED = ("network_not_allowed", 403)
    ENDPOINT_NOT_ALLOWED = ("endpoint_not_allowed", 403)
    UNKNOWN_PATH = ("unknown_path", 404)
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405)
    MODEL_NOT_FOUND = ("model_not_found", 404)
    INSUFFICIENT_BALANCE = ("insufficient_balance", 402)
    SPEND_CAP_REACHED = ("spend_cap_reached", 402)
    RATE_LIMIT_EXCEEDED = ("rate_limit_exceeded", 429)
    CONCURRENCY_LIMIT_EXCEEDED = ("concurrency_limit_exceeded", 429)
    INVALID_REQUEST = ("invalid_request", 400)
    REQUEST_TIMEOUT = ("request_timeout", 408)
    REQUEST_TOO_LARGE = ("request_too_large", 413)
    UNSUPPORTED_ENCODING = ("unsupported_encoding", 415)
    TEMPORARILY_UNAVAILABLE = ("temporarily_unavailable", 503)
    UPSTREAM_ERROR = ("upstream_error", 502)

    def __init__(self, word: str, status: int) -> None:
        self.word = word
        self.status = status


class Refusal(Exception):
    """A request that is not served. The message is for the caller and says what to do; it quotes nothing they sent
    but names. `retry_after_s` only where waiting helps.
    """

    def __init__(
        self, code: Code, message: str, *, retry_after_s: float | None = None, param: str | None = None
    ) -> None:
        super().__init__(code.word)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.param = param


def unavailable(message: str = "The service is briefly unavailable; please try again.") -> Refusal:
    """503, and soon worth another try."""
    return Refusal(Code.TEMPORARILY_UNAVAILABLE, message, retry_after_s=1)


def invalid_key() -> Refusal:
    """One answer for every way in which a key can be wrong, so that it tells a guesser nothing."""
    return Refusal(Code.INVALID_API_KEY, "The API key is missing, malformed, unknown, revoked or expired.")


def suspended(status: str) -> Refusal:
    """403 for an account that is suspended or closed."""
    return Refusal(Code.ACCOUNT_SUSPENDED, f"The account is {status}; its operator can say why.")
