"""What the admit script said no to, as the caller gets it; and the output cap that would fit."""

import math
from collections.abc import Sequence

from gateway import quotes
from gateway.catalogues import Snapshot
from gateway.refusals import Code, Refusal, invalid_key, suspended, unavailable
from gateway.tickets import Wish
from ledger import hot
from ledger.catalogue import Model
from ledger.hot import Refused
from ledger.money import format_usd


def refusal(reply: Refused, models: Sequence[Model], wish: Wish, snapshot: Snapshot) -> Refusal:
    """The script's word as what the caller gets."""
    word, details = reply
    if word in ("REVOKED", "EXPIRED"):
        return invalid_key()
    if word == "SUSPENDED":
        return suspended(details[0])
    if word == "CONCURRENCY":
        message = f"The {details[0]} has {details[1]} requests in flight, which is its limit."
        return Refusal(Code.CONCURRENCY_LIMIT_EXCEEDED, message, retry_after_s=1)
    if word == "RATE":
        wait_s = int(details[2]) / 1_000_000
        message = f"The {details[0]}'s limit of {details[1]} per minute is reached; try again in {math.ceil(wait_s)} s."
        return Refusal(Code.RATE_LIMIT_EXCEEDED, message, retry_after_s=wait_s)
    if word in ("FUNDS", "CAP"):
        needed, left = int(details[-2]), int(details[-1])
        what = "balance" if word == "FUNDS" else f"spend cap for this {details[0]}"
        message = (
            f"The {what} does not cover this request: it can cost up to ${format_usd(needed)} and "
            f"${format_usd(left)} is available.{_affordable(models, wish, snapshot, left)}"
        )
        return Refusal(Code.INSUFFICIENT_BALANCE if word == "FUNDS" else Code.SPEND_CAP_REACHED, message)
    if word in ("BACKLOG", "ENDED"):
        return unavailable()
    raise hot.Unexpected(word)


def fitting_cap(reply: Refused, models: Sequence[Model], wish: Wish, snapshot: Snapshot) -> int:
    """The cap to set in place of the caller's own, if the account wants that rather than a refusal; 0 if not.

    It is never below the floor that a request without a cap has: an answer that is cut short is no favour.
    """
    if not snapshot.account_policy.fit_to_balance or reply.word not in ("FUNDS", "CAP") or not wish.asked.capped:
        return 0
    markup = snapshot.account_policy.markup_ppm
    cap = quotes.affordable_cap(models, wish.asked, len(wish.body), markup, left=int(reply.details[-1]))
    return cap if cap >= max(map(quotes.floor, models)) else 0


def _affordable(models: Sequence[Model], wish: Wish, snapshot: Snapshot, left: int) -> str:
    """Which output cap would fit, for a caller who set one that does not."""
    cap = quotes.affordable_cap(models, wish.asked, len(wish.body), snapshot.account_policy.markup_ppm, left=left)
    return f" An output cap of {cap} tokens would fit." if cap else ""
