"""What a request can cost at most: the amounts to offer for holding, and the output caps that they stand for.

Text has at most one token a byte; content that the body only refers to can be as long as the model takes, at the dearest
rate that may apply (wire.md 8, design.md section 4).
"""

import re
from collections.abc import Sequence

import msgspec

from gateway.dialects.shape import Asked
from ledger.catalogue import Model
from ledger.money import MAX_NANOS
from ledger.prices import Bound, quote_nanos

CAPS = (65_536, 32_768, 16_384, 8_192, 4_096)
FLOOR, REASONING_FLOOR = 4_096, 16_384
# For rates and for bills without usage; never for holds. Typical text has 4 bytes a token, whatever is in base64 has
# little to do with its length: an image or a page is about this many tokens.
_BYTES_A_TOKEN = 4
_TOKENS_A_FILE = 1_500
_TOKENS_A_SECOND = 10
# From the beginning of a run only: otherwise each byte of a run that is too short would be looked at 2,000 times.
_ENCODED = re.compile(rb"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/=_-]{2000,}")


class Quote(msgspec.Struct, frozen=True, gc=False):
    """Nano-USD, dearest first, with the output cap (tokens of one choice) that each covers."""

    amounts: list[int]
    caps: list[int]
    likely_output: int
    """Output tokens as a rate limit counts them at first."""


def quote(model: Model, asked: Asked, body_bytes: int, markup_ppm: int, fallbacks: Sequence[Model] = ()) -> Quote:
    """The dearest ways in which this request could be billed, by the model or one that serves in its place."""
    models = (model, *fallbacks) if fallbacks else (model,)
    most = max([each.max_output_tokens for each in models]) if asked.writes else 0
    if asked.cap is not None:
        caps = [min(asked.cap, most)]
    elif not asked.capped or not asked.writes:
        caps = [most]
    else:
        caps = [most, *(cap for cap in CAPS if max(map(floor, models)) <= cap < most)]
    amounts = [_dearest(models, asked, body_bytes, markup_ppm, cap) for cap in caps]
    return Quote(amounts, caps, min(caps[-1], asked.cap or FLOOR) * asked.choices)


def floor(model: Model) -> int:
    """The smallest output cap that Weir sets by itself: enough for an answer, and for thinking before it."""
    return min(REASONING_FLOOR if model.reasons else FLOOR, model.max_output_tokens)


def must_say(model: Model, asked: Asked, cap: int) -> bool:
    """Whether Weir has to set this cap in the request, for the provider to keep to it or because it must have one."""
    return asked.cap is None and asked.capped and asked.writes and (cap < model.max_output_tokens or asked.needs_cap)


def _dearest(models: Sequence[Model], asked: Asked, body_bytes: int, markup_ppm: int, cap: int) -> int:
    return max([_amount(each, asked, body_bytes, markup_ppm, min(cap, each.max_output_tokens)) for each in models])


def _amount(model: Model, asked: Asked, body_bytes: int, markup_ppm: int, cap: int) -> int:
    shown = body_bytes + asked.extra_input
    tokens = model.max_input_tokens if asked.by_reference else min(shown, model.max_input_tokens)
    bound = Bound(
        input_tokens=tokens,
        output_tokens=cap * asked.choices,
        searches=asked.searches,
        seconds=asked.seconds,
        requests=asked.choices,
        variants=None if asked.others else asked.variants,
    )
    # Nobody has more than that, and no script takes a larger amount: what costs more is not covered, whatever it is.
    return min(quote_nanos(model.price, bound, markup_ppm=markup_ppm), MAX_NANOS)


def affordable_cap(models: Sequence[Model], asked: Asked, body_bytes: int, markup_ppm: int, *, left: int) -> int:
    """The largest output cap below the caller's own that `left` nano-USD cover; 0 if there is none."""
    if asked.cap is None or not asked.writes:
        return 0
    low, high = 0, min(asked.cap, max(each.max_output_tokens for each in models))
    while low < high:
        middle = (low + high + 1) // 2
        fits = _dearest(models, asked, body_bytes, markup_ppm, middle) <= left
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def estimate(body: bytes, asked: Asked) -> int:
    """Input tokens as one would guess them."""
    size, files = len(body), 0
    if asked.seconds:
        return asked.seconds * _TOKENS_A_SECOND
    if asked.by_reference:
        encoded = [found.end() - found.start() for found in _ENCODED.finditer(body)]
        size, files = size - sum(encoded), len(encoded)
    return -(-size // _BYTES_A_TOKEN) + files * _TOKENS_A_FILE
