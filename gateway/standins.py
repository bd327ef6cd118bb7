"""Which models may serve a request: the one that was asked for, and those that its operator lets stand in for it."""

from gateway.catalogues import Opened, Snapshot
from gateway.dialects.shape import Asked, Dialect
from gateway.refusals import Code, Refusal
from ledger.catalogue import Model
from ledger.prices import known_variants


def speaks(opened: Opened, model: Model, dialect: Dialect) -> bool:
    """Whether any upstream of a model understands a dialect."""
    upstreams, providers = opened.book.upstreams, dialect.providers
    for target in model.targets:
        upstream = upstreams.get(target.upstream)
        if upstream is not None and upstream.provider in providers:
            return True
    return False


def objection(model: Model, asked: Asked) -> Refusal | None:
    """To what has no price, and to what one shared credential cannot keep apart (wire.md 6h and 7)."""
    if asked.stored is not None and not model.allow_stored:
        message = (
            f"The field '{asked.stored}' is not served: it refers to what is stored with the provider, where one "
            "credential serves every caller. Send the content in the request itself."
        )
        return Refusal(Code.INVALID_REQUEST, message, param=asked.stored)
    unpriced = set(asked.variants) - known_variants(model.price) if asked.variants else None
    if unpriced:
        message = f"This model has no price for the option '{min(unpriced)[:40]}'; leave it out."
        return Refusal(Code.INVALID_REQUEST, message)
    return None


def fallbacks(opened: Opened, model: Model, snapshot: Snapshot, dialect: Dialect, asked: Asked) -> tuple[Model, ...]:
    """Of the models that may stand in for this one, those that can serve this request of this key."""
    if not model.fallbacks or asked.stored is not None:  # what is stored is stored where the model is
        return ()
    allowed = snapshot.key_policy.models
    longest = min(asked.cap or 0, model.max_output_tokens)  # a cap that the caller set is never changed
    named = (opened.book.models.get(name) for name in model.fallbacks if not allowed or name in allowed)
    return tuple(
        each
        for each in named
        if each is not None
        and each.max_output_tokens >= longest
        and speaks(opened, each, dialect)
        and objection(each, asked) is None
    )
