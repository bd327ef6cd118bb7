"""From a key and a request to a hold: who asks, what it may cost at most, and the one script that decides."""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from gateway.catalogues import Catalogues, Opened, Snapshot, Snapshots, opens, versions
from gateway.refusals import Code, Refusal, invalid_key, suspended, unavailable
from ledger import common_metrics, facts, hot, keys, keyspace, tally
from ledger.catalogue import Model
from ledger.facts import Facts
from ledger.hot import Admitted, Fenced, Offer, Place, Refused
from ledger.keys import KeyId
from ledger.link import Caller, StoreUnavailable
from ledger.money import format_usd
from ledger.prices import cost_nanos, quote_nanos

CAPS = (65_536, 32_768, 16_384, 8_192, 4_096)
FLOOR, REASONING_FLOOR = 4_096, 16_384
_BYTES_A_TOKEN = 4  # of typical text (wire.md 8): for rates, which are corrected at settlement; never for holds


class Wish(Protocol):
    """What any dialect knows of a request, as far as a quote needs it."""

    @property
    def model(self) -> str: ...
    @property
    def cap(self) -> int | None: ...
    @property
    def choices(self) -> int: ...
    @property
    def by_reference(self) -> bool: ...
    @property
    def streamed(self) -> bool: ...


class Ticket(NamedTuple):
    """An admitted request: its hold, and what it was decided with."""

    rid: str
    place: Place
    model: Model
    opened: Opened
    snapshot: Snapshot
    admitted: Admitted
    set_cap: int | None
    input_estimate: int
    most_output: int
    facts: Facts

    def cost(self, usage: dict[str, Any]) -> int:
        if self.admitted.free:
            return 0
        return cost_nanos(self.model.price, usage, markup_ppm=self.snapshot.account_policy.markup_ppm)


class Admission:
    """Decides who is served. Everything here may be out of date; the admit script has the last word."""

    def __init__(self, redis: Caller, catalogues: Catalogues, *, backlog_bound: int = hot.BACKLOG_BOUND) -> None:
        self._redis = redis
        self._catalogues = catalogues
        self._snapshots = Snapshots(redis)
        self._backlog_bound = backlog_bound

    async def identify(self, secret: bytes, address: str, endpoint: str) -> tuple[KeyId, Snapshot]:
        """Whose key this is, before a byte of the body is read; strangers cannot fill memory."""
        key = keys.parse(secret)
        if key is None:
            raise invalid_key()
        try:
            snapshot = self._snapshots.known(key)
            if snapshot is None or not self._accepts(snapshot, secret, address, endpoint):
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

    async def admit(
        self, rid: str, key: KeyId, snapshot: Snapshot, wish: Wish, *, dialect: str, endpoint: str, body_bytes: int
    ) -> Ticket:
        """Hold what the request can cost at most, or raise the Refusal that the caller gets."""
        for attempt in range(2):
            opened, model = await self._model(key, snapshot, wish.model, fresh=attempt > 0)
            amounts, caps = _amounts(model, wish, body_bytes, snapshot.account_policy.markup_ppm)
            estimate = -(-body_bytes // _BYTES_A_TOKEN)
            began = Facts(
                account=snapshot.place.account,
                api_key=snapshot.place.key,
                model=model.name,
                dialect=dialect,
                endpoint=endpoint,
                price_version=model.price.version,
                streamed=wish.streamed,
                bytes_in=body_bytes,
            )
            tokens = estimate + min(caps[-1], wish.cap or FLOOR) * wish.choices
            offer = Offer(amounts, tokens, _keep(snapshot, model, estimate), facts.encode(began))
            reply = await self._ask(rid, snapshot.place, versions(snapshot, opened), offer)
            if isinstance(reply, Admitted):
                cap = caps[reply.choice]
                return Ticket(
                    rid=rid,
                    place=snapshot.place,
                    model=model,
                    opened=opened,
                    snapshot=snapshot,
                    admitted=reply,
                    set_cap=cap if wish.cap is None and cap < model.max_output_tokens else None,
                    input_estimate=estimate,
                    most_output=cap * wish.choices,
                    facts=msgspec.structs.replace(began, free=True) if reply.free else began,
                )
            if reply.word != "STALE":
                raise _refusal(reply, model, wish, body_bytes, snapshot)
            snapshot = await self._again(key)
        raise unavailable("Settings are changing right now; please try again.")

    async def _again(self, key: KeyId) -> Snapshot:
        try:
            snapshot = await self._snapshots.fetch(key)
        except StoreUnavailable:
            raise unavailable() from None
        if snapshot is None:
            raise invalid_key()
        return snapshot

    async def _model(self, key: KeyId, snapshot: Snapshot, name: str, *, fresh: bool) -> tuple[Opened, Model]:
        opened = self._catalogues.now
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


def _amounts(model: Model, wish: Wish, body_bytes: int, markup_ppm: int) -> tuple[list[int], list[int]]:
    """What to offer for holding, dearest first, and the output caps that these amounts stand for (design.md section 4).

    Text has at most one token a byte; content that the body only refers to can be as long as the model takes (wire.md 8).
    """
    tokens = model.max_input_tokens if wish.by_reference else min(body_bytes, model.max_input_tokens)
    most = model.max_output_tokens
    if wish.cap is not None:
        caps = [min(wish.cap, most)]
    else:
        floor = min(REASONING_FLOOR if model.reasons else FLOOR, most)
        caps = [most, *(cap for cap in CAPS if floor <= cap < most)]
    quotes = [
        quote_nanos(model.price, input_tokens=tokens, output_tokens=cap * wish.choices, markup_ppm=markup_ppm)
        for cap in caps
    ]
    return [int(quote) for quote in quotes], caps


def _keep(snapshot: Snapshot, model: Model, input_estimate: int) -> Any:
    """What a request that is abandoned is charged at least, by the account's plan."""
    kept = snapshot.account_policy.on_abandoned
    if kept == "charge_hold":
        return "hold"
    if kept == "charge_input":
        markup = snapshot.account_policy.markup_ppm
        return int(cost_nanos(model.price, {"input_uncached": input_estimate}, markup_ppm=markup))
    return 0


def _refusal(reply: Refused, model: Model, wish: Wish, body_bytes: int, snapshot: Snapshot) -> Refusal:
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
            f"${format_usd(left)} is available.{_affordable(model, wish, body_bytes, snapshot, left)}"
        )
        return Refusal(Code.INSUFFICIENT_BALANCE if word == "FUNDS" else Code.SPEND_CAP_REACHED, message)
    if word in ("BACKLOG", "ENDED"):
        return unavailable()
    raise hot.Unexpected(word)


def _affordable(model: Model, wish: Wish, body_bytes: int, snapshot: Snapshot, left: int) -> str:
    """Which output cap would fit, for a caller who set one that does not."""
    if wish.cap is None:
        return ""
    low, high = 0, wish.cap
    while low < high:
        middle = (low + high + 1) // 2
        amounts, _ = _amounts(model, _Capped(wish, middle), body_bytes, snapshot.account_policy.markup_ppm)
        low, high = (middle, high) if amounts[0] <= left else (low, middle - 1)
    return f" An output cap of {low} tokens would fit." if low else ""


class _Capped(NamedTuple):
    """A wish with another cap."""

    wish: Wish
    cap: int | None

    @property
    def model(self) -> str:
        return self.wish.model

    @property
    def choices(self) -> int:
        return self.wish.choices

    @property
    def by_reference(self) -> bool:
        return self.wish.by_reference

    @property
    def streamed(self) -> bool:
        return self.wish.streamed


async def balance(redis: Caller, place: Place) -> Sequence[int]:
    """credited, spent, held and available of an account, in nano-USD."""
    names = ("credited", "spent", "held", "avail")
    row = await redis.command("HMGET", keyspace.account(place.partition, place.account), *names)
    await asyncio.sleep(0)
    return [int(value or 0) for value in row]
