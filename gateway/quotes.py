"""What a request can cost at most: the amounts to offer for holding, and the output caps that they stand for.

Text has at most one token a byte; content that the body only refers to can be as long as the model takes, at the dearest
rate that may apply (wire.md 8, design.md section 4).
"""

import re
from collections.abc import Sequence
from typing import Final

from gateway.dialects.shape import Asked
from ledger import prices
from ledger.catalogue import Model
from ledger.frozen import Frozen
from ledger.money import MAX_NANOS
from ledger.prices import Bound, Ceiling

CAPS: Final = (65_536, 32_768, 16_384, 8_192, 4_096)
FLOOR, REASONING_FLOOR = 4_096, 16_384
# For rates and for bills without usage; never for holds. Typical text has 4 bytes a token, whatever is in base64 has
# little to do with its length: an image or a page is about this many tokens.
_BYTES_A_TOKEN: Final = 4
_TOKENS_A_FILE: Final = 1_500
_TOKENS_A_SECOND: Final = 10
# From the beginning of a run only: otherwise each byte of a run that is too short would be looked at 2,000 times.
_ENCODED: Final = re.compile(rb"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/=_-]{2000,}")


class Quote(Frozen, frozen=True):
    """Nano-USD, dearest first, with the output cap (tokens of one choice) that each covers."""

    amounts: list[int]
    caps: list[int]
    likely_output: int
    """Output tokens as a rate limit counts them at first."""


def quote(model: Model, asked: Asked, body_bytes: int, markup_ppm: int, fallbacks: Sequence[Model] = ()) -> Quote:
    """The dearest ways in which this request could be billed, by the model or one that serves in its place."""
    models = (model, *fallbacks)
    most = max([each.max_output_tokens for each in models]) if asked.writes else 0
    if asked.cap is not None:
        caps = [min(asked.cap, most)]
    elif not asked.capped or not asked.writes:
        caps = [most]
    else:
        least = max([floor(each) for each in models])
        caps = [most, *[cap for cap in CAPS if least <= cap < most]]
    ceilings = _ceilings(models, asked, body_bytes)
    amounts = [_dearest(ceilings, cap, asked.choices, markup_ppm) for cap in caps]
    return Quote(amounts, caps, min(caps[-1], asked.cap or FLOOR) * asked.choices)


def floor(model: Model) -> int:
    """The smallest output cap that Weir sets by itself: enough for an answer, and for thinking before it."""
    return min(REASONING_FLOOR if model.reasons else FLOOR, model.max_output_tokens)


def must_say(model: Model, asked: Asked, cap: int) -> bool:
    """Whether Weir has to set this cap in the request, for the provider to keep to it or because it must have one."""
    return asked.cap is None and asked.capped and asked.writes and (cap < model.max_output_tokens or asked.needs_cap)


def _ceilings(models: Sequence[Model], asked: Asked, body_bytes: int) -> list[tuple[Ceiling, int]]:
    """What each model can cost at most, and the most output of one choice that it writes."""
    return [(_ceiling(each, asked, body_bytes), each.max_output_tokens) for each in models]


def _ceiling(model: Model, asked: Asked, body_bytes: int) -> Ceiling:
    shown = body_bytes + asked.extra_input
    bound = Bound(
        input_tokens=model.max_input_tokens if asked.by_reference else min(shown, model.max_input_tokens),
        searches=asked.searches,
        seconds=asked.seconds,
        requests=asked.choices,
        variants=None if asked.others else asked.variants,
    )
    return prices.ceiling(model.price, bound)


def _dearest(ceilings: list[tuple[Ceiling, int]], cap: int, choices: int, markup_ppm: int) -> int:
    """The most that so many output tokens of each choice can cost, by whichever model.

    Nobody has more than MAX_NANOS, and no script takes a larger amount: what costs more is not covered, whatever it is.
    """
    dearest = max([ceiling.nanos(min(cap, most) * choices, markup_ppm=markup_ppm) for ceiling, most in ceilings])
    return min(dearest, MAX_NANOS)


def affordable_cap(models: Sequence[Model], asked: Asked, body_bytes: int, markup_ppm: int, *, left: int) -> int:
    """The largest output cap below the caller's own that `left` nano-USD cover; 0 if there is none."""
    if asked.cap is None or not asked.writes:
        return 0
    ceilings = _ceilings(models, asked, body_bytes)
    low, high = 0, min(asked.cap, max(each.max_output_tokens for each in models))
    while low < high:
        middle = (low + high + 1) // 2
        fits = _dearest(ceilings, middle, asked.choices, markup_ppm) <= left
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
