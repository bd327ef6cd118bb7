"""From a key and a request to a hold: who asks, what it may cost at most, and the one script that decides."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from gateway import declined, quotes, standins
from gateway.catalogues import Catalogues, Opened, Snapshot, Snapshots, opens, versions
from gateway.refusals import Code, Refusal, invalid_key, suspended, unavailable
from gateway.tickets import Ticket, Wish, standin
from gateway.upstream.quota import Tokens
from ledger import balances, common_metrics, facts, hot, keys, keyspace, tally
from ledger.catalogue import Model
from ledger.facts import Facts
from ledger.hot import Admitted, Fenced, Offer, Place, Refused
from ledger.keys import KeyId
from ledger.link import Caller, StoreUnavailable
from ledger.prices import cost_nanos

_clock: Final = time.perf_counter
_observe_admit: Final = tally.observer(common_metrics.SCRIPT_SECONDS, "admit")


class Admission:
    """Decides who is served. Everything here may be out of date; the admit script has the last word."""

    def __init__(self, redis: Caller, catalogues: Catalogues, *, backlog_bound: int = hot.BACKLOG_BOUND) -> None:
        self._redis = redis
        self._catalogues = catalogues
        self._snapshots = Snapshots(redis)
        self._backlog_bound = backlog_bound

    def known(self, secret: bytes, address: str, endpoint: str) -> tuple[KeyId, Snapshot] | None:
        """`identify` from memory; None if it has to ask."""
        key = keys.parse(secret)
        if key is None:
            raise invalid_key()
        snapshot = self._snapshots.known(key)
        if snapshot is not None and self._accepts(snapshot, secret, address, endpoint):
            return key, snapshot
        return None

    async def identify(self, secret: bytes, address: str, endpoint: str) -> tuple[KeyId, Snapshot]:
        """Whose key this is, before a byte of the body is read; strangers cannot fill memory."""
        return self.known(secret, address, endpoint) or await self.look_up(secret, address, endpoint)

    async def look_up(self, secret: bytes, address: str, endpoint: str) -> tuple[KeyId, Snapshot]:
        """`identify` for what is not `known`."""
        key = keys.parse(secret)
        if key is None or not keys.is_whole(secret):
            raise invalid_key()
        try:
            # A refusal from memory would be a lag: read again what may have changed, and decide on that.
            seen = await hot.look(self._redis, key.partition, key.id)
            snapshot = self._snapshots.remember(key, seen)
            await self._catalogues.load(seen.config)
        except StoreUnavailable:
            raise unavailable() from None
        opened = self._catalogues.now
        if opened is None:
            raise unavailable()
        if snapshot is None or not opens(snapshot, secret, opened):
            raise invalid_key()
        _check_use(snapshot, address, endpoint)
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
        _check_use(snapshot, address, endpoint)
        return snapshot

    def _accepts(self, snapshot: Snapshot, secret: bytes, address: str, endpoint: str) -> bool:
        opened = self._catalogues.now
        return opened is not None and opens(snapshot, secret, opened) and _misuse(snapshot, address, endpoint) is None

    async def admit(self, rid: str, key: KeyId, snapshot: Snapshot, wish: Wish, address: str) -> Ticket:
        """Hold what the request can cost at most, or raise the Refusal that the caller gets.

        `address`: where the request is from, for a key that has been confined to other networks meanwhile.
        """
        asked, free = wish.asked, wish.operation.free
        fresh = fitted = False
        for _ in range(3):
            found = None if fresh else self._served(snapshot, wish)
            opened, model = found or await self._found(key, snapshot, wish)
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
                first = standin(model, asked, cap, fitted=fitted, free=free)
                return Ticket(
                    rid=rid,
                    place=snapshot.place,
                    model=model,
                    standins=tuple([standin(each, asked, cap, fitted=fitted, free=free) for each in others]),
                    opened=opened,
                    snapshot=snapshot,
                    admitted=reply,
                    set_cap=first.set_cap,
                    input_estimate=estimate,
                    most_output=first.most_output,
                    tokens=Tokens(estimate, quote.likely_output),
                    facts=replace(began, free=True) if reply.free else began,
                    costs_nothing=free,
                )
            if reply.word == "STALE" and not fresh:
                snapshot, fresh = await self._again(key), True
                _check_use(snapshot, address, wish.operation.name)
            elif reply.word != "STALE":
                models = (model, *others)
                cap = 0 if fitted else declined.fitting_cap(reply, models, wish, snapshot)
                if not cap:
                    raise declined.refusal(reply, models, wish, snapshot)
                asked, fitted = replace(asked, cap=cap), True
        raise unavailable("Settings are changing right now; please try again.")

    async def _again(self, key: KeyId) -> Snapshot:
        try:
            snapshot = await self._snapshots.fetch(key)
        except StoreUnavailable:
            raise unavailable() from None
        if snapshot is None:
            raise invalid_key()
        return snapshot

    def _served(self, snapshot: Snapshot, wish: Wish) -> tuple[Opened, Model] | None:
        """The model that is asked for, if this key may use it and its upstreams speak the dialect, as far as is known."""
        opened, name = self._catalogues.now, wish.asked.model
        model = opened.book.models.get(name) if opened else None
        if opened is None or model is None or not _allows(snapshot, name):
            return None
        return (opened, model) if standins.speaks(opened, model, wish.dialect) else None

    async def _found(self, key: KeyId, snapshot: Snapshot, wish: Wish) -> tuple[Opened, Model]:
        """The same after another look at what may have changed, or the Refusal that says what is wrong."""
        name = wish.asked.model
        try:
            opened = await self._catalogues.refresh(key.partition)
            again = snapshot if _allows(snapshot, name) else await self._snapshots.fetch(key)
        except StoreUnavailable:
            raise unavailable() from None
        if opened is None:
            raise unavailable()
        model = opened.book.models.get(name)
        if model is None or again is None or not _allows(again, name):
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
        began, lost = _clock(), False
        for _ in range(2):
            try:
                asked = hot.admitting(self._redis, place, rid, seen, offer, backlog_bound=self._backlog_bound)
                reply = hot.admitted(await asked)
            except StoreUnavailable:
                lost = True
                continue
            except Fenced:
                if lost:  # the first may have been heard by the server that is fenced now
                    break
                raise unavailable() from None
            _observe_admit(_clock() - began)
            return reply
        raise Unsure(place)


class Unsure(Exception):
    """Redis did not answer twice: the hold may exist, so it has to be voided when Redis answers again."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place


def _misuse(snapshot: Snapshot, address: str, endpoint: str) -> Refusal | None:
    """What is wrong with using this key from there and for that."""
    if snapshot.networks and not snapshot.allows_address(address):
        return Refusal(Code.NETWORK_NOT_ALLOWED, "This API key may not be used from this network.")
    if snapshot.key_policy.endpoints and endpoint not in snapshot.key_policy.endpoints:
        return Refusal(Code.ENDPOINT_NOT_ALLOWED, f"This API key may not use {endpoint}.")
    return None


def _check_use(snapshot: Snapshot, address: str, endpoint: str) -> None:
    if (refusal := _misuse(snapshot, address, endpoint)) is not None:
        raise refusal


def _allows(snapshot: Snapshot, model: str) -> bool:
    """Whether the key may use a model of this name."""
    models = snapshot.key_policy.models
    return not models or model in models


def _keep(snapshot: Snapshot, model: Model, input_estimate: int) -> Any:
    """What a request that is abandoned is charged at least, by the account's plan."""
    kept = snapshot.account_policy.on_abandoned
    if kept == "charge_hold":
        return "hold"
    if kept == "charge_input":
        markup = snapshot.account_policy.markup_ppm
        return int(cost_nanos(model.price, {"input_uncached": input_estimate}, markup_ppm=markup))
    return 0


async def balance(redis: Caller, place: Place) -> Sequence[int]:
    """credited, spent, held and available of an account, in nano-USD."""
    key = keyspace.account(place.partition, place.account)
    credited, spent, record = await redis.command("HMGET", key, "credited", "spent", balances.FIELD)
    await asyncio.sleep(0)
    has = balances.Balance.read(record)
    return [int(credited or 0), int(spent or 0), has.held_nanos, has.available_nanos]
