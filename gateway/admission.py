"""From a key and a request to a hold: who asks, what it may cost at most, and the one script that decides."""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from gateway import quotes, standins
from gateway.catalogues import Catalogues, Opened, Snapshot, Snapshots, opens, versions
from gateway.dialects.shape import Asked, Dialect, Operation
from gateway.refusals import Code, Refusal, invalid_key, suspended, unavailable
from gateway.upstream.quota import Tokens
from ledger import common_metrics, facts, hot, keys, keyspace, tally
from ledger.catalogue import Model
from ledger.facts import Facts
from ledger.hot import Admitted, Fenced, Offer, Place, Refused
from ledger.keys import KeyId
from ledger.link import Caller, StoreUnavailable
from ledger.money import format_usd
from ledger.prices import cost_nanos


class Wish(NamedTuple):
    """What is to be admitted: in which dialect, what for, what it asks for, and the bytes that ask."""

    dialect: Dialect
    operation: Operation
    asked: Asked
    body: bytes
    alone: bool = False
    """Whether no other model may stand in: a session stays with the one it began with."""


class Standin(NamedTuple):
    """Another model that may serve: the output cap to set for it, if any, and the most output that it may write."""

    model: Model
    set_cap: int | None
    most_output: int


class Ticket(NamedTuple):
    """An admitted request: its hold, and what it was decided with. `model` is the one that serves and is billed."""

    rid: str
    place: Place
    model: Model
    standins: tuple[Standin, ...]
    opened: Opened
    snapshot: Snapshot
    admitted: Admitted
    set_cap: int | None
    input_estimate: int
    most_output: int
    tokens: Tokens
    facts: Facts
    costs_nothing: bool

    def cost(self, usage: dict[str, Any]) -> int:
        if self.admitted.free or self.costs_nothing:
            return 0
        return cost_nanos(self.model.price, usage, markup_ppm=self.snapshot.account_policy.markup_ppm)

    def served_by(self, name: str) -> "Ticket":
        """The ticket of a request that this model serves; it is billed at its price (`facts`)."""
        for model, set_cap, most_output in self.standins:
            if model.name == name:
                told = msgspec.structs.replace(self.facts, price_version=model.price.version, fallback_model=name)
                return self._replace(model=model, set_cap=set_cap, most_output=most_output, facts=told)
        return self


class Admission:
    """Decides who is served. Everything here may be out of date; the admit script has the last word."""

    def __init__(self, redis: Caller, catalogues: Catalogues, *, backlog_bound: int = hot.BACKLOG_BOUND) -> None:
        self._redis = redis
        self._catalogues = catalogues
        self._snapshots = Snapshots(redis)
        self._backlog_bound = backlog_bound

    async def identify(self, secret: bytes, address: str, endpoint: str) -> tuple[KeyId, Snapshot]:
        """Whose key this is, before a byte of the body is read; strangers cannot fill memory."""
        key = keys.form(secret)
        if key is None:
            raise invalid_key()
        snapshot = self._snapshots.known(key)
        if snapshot is not None and self._accepts(snapshot, secret, address, endpoint):
            return key, snapshot
        if not keys.is_whole(secret):
            raise invalid_key()
        try:
            # A refusal from memory would be a lag: read again what may have changed, and decide on that.
            snapshot = await self._snapshots.fetch(key)
            await self._catalogues.refresh(key.partition)
        except StoreUnavailable:
            raise unavailable() from None
        opened = self._catalogues.now
        if opened is None:
            raise unavailable()
        if snapshot is None or not opens(snapshot, secret, opened):
            raise invalid_key()
        if snapshot.networks and not snapshot.allows_address(address):
            raise Refusal(Code.NETWORK_NOT_ALLOWED, "This API key may not be used from this network.")
        if snapshot.key_policy.endpoints and endpoint not in snapshot.key_policy.endpoints:
            raise Refusal(Code.ENDPOINT_NOT_ALLOWED, f"This API key may not use {endpoint}.")
        return key, snapshot

    async def identify_now(self, secret: bytes, address: str, endpoint: str) -> Snapshot:
        """Whose key this is, for answers that no admit stands behind: everything is read anew, status and expiry too."""
        key, _ = await self.identify(secret, address, endpoint)
        try:
            snapshot = await self._snapshots.fetch(key)
            seconds, micros = await self._redis.command("TIME")
        except StoreUnavailable:
            raise unavailable() from None
        now_us = int(seconds) * 1_000_000 + int(micros)
        if snapshot is None or snapshot.status != "active" or 0 < snapshot.expires_us <= now_us:
            raise invalid_key()
        if snapshot.account_status != "active":
            raise suspended(snapshot.account_status)
        return snapshot

    def _accepts(self, snapshot: Snapshot, secret: bytes, address: str, endpoint: str) -> bool:
        opened = self._catalogues.now
        return (
            opened is not None
            and opens(snapshot, secret, opened)
            and (not snapshot.networks or snapshot.allows_address(address))
            and (not snapshot.key_policy.endpoints or endpoint in snapshot.key_policy.endpoints)
        )

    async def admit(self, rid: str, key: KeyId, snapshot: Snapshot, wish: Wish) -> Ticket:
        """Hold what the request can cost at most, or raise the Refusal that the caller gets."""
        asked, free = wish.asked, wish.operation.free
        fresh = fitted = False
        for _ in range(3):
            opened, model = await self._model(key, snapshot, wish, fresh=fresh)
            refusal = standins.objection(model, asked)
            if refusal is not None:
                raise refusal
            others = () if wish.alone or free else standins.fallbacks(opened, model, snapshot, wish.dialect, asked)
            quote = quotes.quote(model, asked, len(wish.body), snapshot.account_policy.markup_ppm, others)
            estimate = quotes.estimate(wish.body, asked)
            began = Facts(
                account=snapshot.place.account,
                api_key=snapshot.place.key,
                model=model.name,
                dialect=wish.dialect.name,
                endpoint=wish.operation.name,
                price_version=model.price.version,
                streamed=asked.streamed,
                markup_ppm=0 if free else snapshot.account_policy.markup_ppm,
                bytes_in=len(wish.body),
            )
            if free:
                offer = Offer([0], 0, 0, facts.encode(began))
            else:
                keep = _keep(snapshot, model, estimate)
                offer = Offer(quote.amounts, estimate + quote.likely_output, keep, facts.encode(began))
            reply = await self._ask(rid, snapshot.place, versions(snapshot, opened), offer)
            if isinstance(reply, Admitted):
                cap = quote.caps[0 if free else reply.choice]
                first = _standin(model, asked, cap, fitted=fitted, free=free)
                return Ticket(
                    rid=rid,
                    place=snapshot.place,
                    model=model,
                    standins=tuple([_standin(each, asked, cap, fitted=fitted, free=free) for each in others]),
                    opened=opened,
                    snapshot=snapshot,
                    admitted=reply,
                    set_cap=first.set_cap,
                    input_estimate=estimate,
                    most_output=first.most_output,
                    tokens=Tokens(estimate, quote.likely_output),
                    facts=msgspec.structs.replace(began, free=True) if reply.free else began,
                    costs_nothing=free,
                )
            if reply.word == "STALE" and not fresh:
                snapshot, fresh = await self._again(key), True
            elif reply.word != "STALE":
                models = (model, *others)
                cap = 0 if fitted else _fitting_cap(reply, models, wish, snapshot)
                if not cap:
                    raise _refusal(reply, models, wish, snapshot)
                asked, fitted = asked._replace(cap=cap), True
        raise unavailable("Settings are changing right now; please try again.")

    async def _again(self, key: KeyId) -> Snapshot:
        try:
            snapshot = await self._snapshots.fetch(key)
        except StoreUnavailable:
            raise unavailable() from None
        if snapshot is None:
            raise invalid_key()
        return snapshot

    async def _model(self, key: KeyId, snapshot: Snapshot, wish: Wish, *, fresh: bool) -> tuple[Opened, Model]:
        name, opened = wish.asked.model, self._catalogues.now
        model = opened.book.models.get(name) if opened else None
        allowed = not snapshot.key_policy.models or name in snapshot.key_policy.models
        if fresh or model is None or not allowed:
            try:
                opened = await self._catalogues.refresh(key.partition)
                again = await self._snapshots.fetch(key) if not allowed else snapshot
            except StoreUnavailable:
                raise unavailable() from None
            model = opened.book.models.get(name) if opened else None
            allowed = again is not None and (not again.key_policy.models or name in again.key_policy.models)
        if opened is None:
            raise unavailable()
        if model is None or not allowed:
            message = "No model of this name is served to this API key; GET /weir/v1/models lists those that are."
            raise Refusal(Code.MODEL_NOT_FOUND, message, param="model")
        if not standins.speaks(opened, model, wish.dialect):
            message = (
                f"This model is not served in the {wish.dialect.name} dialect; use the base URL of its provider's."
            )
            raise Refusal(Code.MODEL_NOT_FOUND, message, param="model")
        return opened, model

    async def _ask(self, rid: str, place: Place, seen: hot.Versions, offer: Offer) -> Admitted | Refused:
        """Run admit; once more with the same id if the answer was lost. A hold that nobody may know of is voided."""
        began, lost = time.perf_counter(), False
        for _ in range(2):
            try:
                reply = await hot.admit(self._redis, place, rid, seen, offer, backlog_bound=self._backlog_bound)
            except StoreUnavailable:
                lost = True
                continue
            except Fenced:
                if lost:  # the first may have been heard by the server that is fenced now
                    break
                raise unavailable() from None
            tally.observe(common_metrics.SCRIPT_SECONDS, time.perf_counter() - began, "admit")
            return reply
        raise Unsure(place)


class Unsure(Exception):
    """Redis did not answer twice: the hold may exist, so it has to be voided when Redis answers again."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place


def _standin(model: Model, asked: Asked, cap: int, *, fitted: bool, free: bool) -> Standin:
    """A model under a hold that covers this output cap."""
    cap = min(cap, model.max_output_tokens) if asked.writes else cap
    says = not free and (fitted or quotes.must_say(model, asked, cap))
    return Standin(model, cap if says else None, cap * asked.choices)


def _keep(snapshot: Snapshot, model: Model, input_estimate: int) -> Any:
    """What a request that is abandoned is charged at least, by the account's plan."""
    kept = snapshot.account_policy.on_abandoned
    if kept == "charge_hold":
        return "hold"
    if kept == "charge_input":
        markup = snapshot.account_policy.markup_ppm
        return int(cost_nanos(model.price, {"input_uncached": input_estimate}, markup_ppm=markup))
    return 0


def _refusal(reply: Refused, models: Sequence[Model], wish: Wish, snapshot: Snapshot) -> Refusal:
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


def _fitting_cap(reply: Refused, models: Sequence[Model], wish: Wish, snapshot: Snapshot) -> int:
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


async def balance(redis: Caller, place: Place) -> Sequence[int]:
    """credited, spent, held and available of an account, in nano-USD."""
    names = ("credited", "spent", "held", "avail")
    row = await redis.command("HMGET", keyspace.account(place.partition, place.account), *names)
    await asyncio.sleep(0)
    return [int(value or 0) for value in row]
