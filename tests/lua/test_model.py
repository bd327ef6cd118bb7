"""The books as a state machine: any order of calls against the real scripts, and a model that fits on a page.

`WEIR_MODEL=pr` runs 500 examples of 40 steps, `WEIR_MODEL=nightly` 20,000.
"""

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ledger import balances, holds, hot, keyspace
from ledger.balances import Balance
from ledger.hot import Admitted, Ended, Fenced, Offer, Old, Place, Refused, Versions
from ledger.lines import InUse
from ledger.link import Link
from ledger.postings import Posting
from tests.lua.books import CAP, DUE, META, USAGE, Books, P, hold_key

T = TypeVar("T")
EXAMPLES, STEPS = {"": (60, 30), "pr": (500, 40), "nightly": (20_000, 40)}[os.environ.get("WEIR_MODEL", "")]
ACCOUNTS = ("a", "b")
FREE = {"a": 0, "b": 2}  # requests of the month
RIDS = st.integers(0, 7).map(lambda number: f"{ACCOUNTS[number % 2]}{number}")
# An amount is a number, or one that depends on the balance: all of it, one less, one more, ...
AMOUNTS = st.one_of(
    st.sampled_from([0, 1, CAP - 1, CAP, "all", "all - 1", "all + 1", "half", "hold", "hold + 1"]),
    st.integers(0, CAP),
    st.integers(0, 1000),
)


@dataclass
class Account:
    """One account of the model: four sums, and what the scripts must say."""

    credited: int = 0
    spent: int = 0
    held: int = 0
    grant: int = 0
    version: int = 1
    active: bool = True
    free: int = 0
    free_used: int = 0

    @property
    def avail(self) -> int:
        return self.credited - self.spent - self.held


@dataclass
class Request:
    """One request of the model: its state, and the sums over its events."""

    state: str = "H"
    hold: int = 0
    used: int = 0
    keep: int = 0
    charge: int = 0
    short: int = 0
    free: bool = False
    ends: list[str] = field(default_factory=list)

    def post(self, account: Account, end: str, cost: int) -> tuple[int, int]:
        """Release the hold, if any, and take the charge, as far as there is money."""
        hold = self.hold if self.state == "H" else 0
        cost = 0 if self.free else cost
        charge = min(cost, account.avail + hold)
        account.free_used -= self.free and end == "voided"
        account.held -= hold
        account.spent += charge
        self.charge, self.short = self.charge + charge, self.short + cost - charge
        self.state = "X" if end == "abandoned" else "S"
        self.ends.append(end)
        return charge, cost - charge


class Machine(RuleBasedStateMachine):
    """Two accounts, eight request ids that come again and again, one server that is sometimes another."""

    url = ""
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.accounts = {name: Account(free=FREE[name]) for name in ACCOUNTS}
        self.requests: dict[str, Request] = {}
        self.server: bytes | None = None  # the real name, while a foreign one is written in its place
        self.link = Link(self.url)
        self.run(self.link.__aenter__())

    def teardown(self) -> None:
        self.run(self.link.__aexit__())

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def command(self, *words: Any) -> Any:
        async def ask() -> Any:
            return await self.link.command(*words)

        return self.run(ask())

    def call(self, call: Coroutine[Any, Any, T]) -> T | None:
        """The reply; None if it was fenced, which must be so exactly while the server's name is another."""
        try:
            reply = self.run(call)
        except Fenced:
            assert self.server is not None
            return None
        assert self.server is None
        return reply

    def books(self, account: str) -> Books:
        return Books(self.link, Place(P, account, f"key-{account}", f"line-{account}"))

    def amount(self, given: int | str, rid: str) -> int:
        account, request = self.accounts[rid[0]], self.requests.get(rid, Request())
        named = {
            "all": account.avail, "all - 1": account.avail - 1, "all + 1": account.avail + 1, "half": account.avail // 2,
            "hold": request.hold, "hold + 1": request.hold + 1,
        }  # fmt: skip
        return min(max(named[given] if isinstance(given, str) else given, 0), CAP)

    @initialize(credits=st.tuples(AMOUNTS, AMOUNTS))
    def begin(self, credits: tuple[int | str, int | str]) -> None:  # noqa: A002 - hypothesis passes it by this name
        self.command("FLUSHALL")
        self.run(self.books("a").open())
        for name, more in zip(ACCOUNTS, credits, strict=True):
            self.run(self.books(name).account(None, free=FREE[name] or ""))
            self.run(self.books(name).key())
            self.grant(name, more)

    @rule(name=st.sampled_from(ACCOUNTS), more=AMOUNTS)
    def grant(self, name: str, more: int | str) -> None:
        account, total = self.accounts[name], self.amount(more, name)
        fits = account.avail + account.held + total <= CAP
        reply = self.call(self.books(name).grant(account.grant + 1, account.credited + total))
        if reply is not None:
            assert reply == ("OK" if fits else "RANGE")
            account.credited += total if fits else 0
            account.grant += fits

    @rule(name=st.sampled_from(ACCOUNTS), more=AMOUNTS)
    def grant_again(self, name: str, more: int | str) -> None:
        account = self.accounts[name]
        assert self.call(self.books(name).grant(account.grant, self.amount(more, name))) in ("REPEAT", None)

    @rule(
        rid=RIDS,
        amounts=st.lists(AMOUNTS, min_size=1, max_size=3),
        keep=st.sampled_from([0, 1, "hold"]),
        stale=st.sampled_from([0, 0, 0, -1, 1]),
    )
    def admit(self, rid: str, amounts: list[int | str], keep: Any, stale: int) -> None:
        account, offered = self.accounts[rid[0]], [self.amount(each, rid) for each in amounts]
        fit = [each for each in offered[:-1] if each * 10 <= account.avail]
        free = account.free_used < account.free and offered[0] > 0
        hold = 0 if free else fit[0] if fit else offered[-1]
        versions, offer = Versions(1, account.version + stale, 1), Offer(offered, 5, keep)
        reply = self.call(hot.admit(self.link, self.books(rid[0]).place, rid, versions, offer))
        known = self.requests.get(rid)
        if reply is None:
            return
        if known:
            word = "OK" if known.state == "H" else "ENDED"
        else:
            funds = "OK" if hold <= account.avail else "FUNDS"
            word = "STALE" if stale else funds if account.active else "SUSPENDED"
        assert word == (reply.word if isinstance(reply, Refused) else "OK")
        if isinstance(reply, Admitted) and not known:
            account.held += hold
            account.free_used += free
            known = self.requests[rid] = Request(hold=hold, keep=hold if keep == "hold" else keep, free=free)
        if isinstance(reply, Admitted) and known:
            assert (reply.amount_nanos, reply.free) == (known.hold, known.free)

    @rule(rid=RIDS, used=AMOUNTS)
    def progress(self, rid: str, used: int | str) -> None:
        request, cost = self.requests.get(rid), self.amount(used, rid)
        reply = self.call(self.books(rid[0]).progress(rid, cost))
        if reply is None:
            return
        if request is None or request.state != "H":
            assert reply == "GONE"
            return
        assert reply == ("STOP" if cost >= request.hold and cost and not request.free else "OK")
        request.used = max(request.used, cost)

    @rule(rid=RIDS, cost=AMOUNTS, tokens=st.sampled_from([None, 0, 5, 9]))
    def settle(self, rid: str, cost: int | str, tokens: int | None) -> None:
        known, nanos = self.requests.get(rid), self.amount(cost, rid)
        reply = self.call(self.books(rid[0]).settle(rid, nanos, tokens=tokens))
        if reply is None:
            return
        assert not isinstance(reply, Old)
        request = self.requests.setdefault(rid, Request(state=""))
        if request.state == "S":
            assert reply == Ended("repeat", request.charge, request.short, 0)
            return
        end = {"H": "settled", "X": "late", "": "orphan"}[request.state]
        left = max(nanos - request.charge - request.short, 0)
        assert (reply.end, reply.charge_nanos, reply.shortfall_nanos) == (
            end,
            *request.post(self.accounts[rid[0]], end, left),
        ), known

    @rule(rid=RIDS)
    def void(self, rid: str) -> None:
        reply = self.call(self.books(rid[0]).settle(rid, 0, void=True))
        if reply is None:
            return
        request = self.requests.setdefault(rid, Request(state=""))
        end = "repeat" if request.state == "S" else "voided"
        if request.state == "H":
            request.post(self.accounts[rid[0]], "voided", 0)
        request.state = "S"
        assert isinstance(reply, Ended)
        assert (reply.end, reply.charge_nanos, reply.shortfall_nanos) == (end, request.charge, request.short)

    @rule(rid=RIDS, due=st.booleans())
    def sweep(self, rid: str, due: bool) -> None:
        if due:
            self.run(self.books(rid[0]).make_due(rid))
        reply, request = self.call(self.books(rid[0]).sweep(rid)), self.requests.get(rid)
        if self.server is not None:
            return
        live = request is not None and request.state == "H"
        if reply is None or request is None:
            assert reply is None
            assert not (live and due)
            return
        assert live
        cost = max(request.used, request.keep)
        assert (reply.end, reply.charge_nanos, reply.shortfall_nanos) == (
            "abandoned",
            *request.post(self.accounts[rid[0]], "abandoned", cost),
        )

    @rule(name=st.sampled_from(ACCOUNTS), active=st.booleans(), newer=st.booleans())
    def publish(self, name: str, active: bool, newer: bool) -> None:
        account = self.accounts[name]
        status = {"status": "active" if active else "suspended"}
        reply = self.call(hot.publish(self.link, P, keyspace.account(P, name), account.version + newer, status))
        if reply is not None:
            assert reply is newer
            account.version += newer
            account.active = active if newer else account.active

    @precondition(lambda self: self.server is None)
    @rule()
    def another_server(self) -> None:
        self.server = self.command("HGET", META, "server")
        self.command("HSET", META, "server", "another")

    @precondition(lambda self: self.server is not None)
    @rule()
    def the_server_again(self) -> None:
        self.command("HSET", META, "server", self.server)
        self.server = None

    @invariant()
    def the_books_balance(self) -> None:
        entries = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in self.command("XRANGE", USAGE, "-", "+")]
        posted = [Posting.read(entry) for entry in entries]
        assert [each.seq for each in posted] == list(range(1, len(entries) + 1))
        live = {rid for rid, request in self.requests.items() if request.state == "H"}
        assert {rid.decode() for rid in self.command("ZRANGE", DUE, 0, -1)} == live
        for name, account in self.accounts.items():
            names = ("credited", "spent", "fused", balances.FIELD)
            *raw, record = self.command("HMGET", keyspace.account(P, name), *names)
            credited, spent, free_used = (int(value or 0) for value in raw)
            avail, held, slots, *_ = Balance.read(record)
            assert free_used == account.free_used <= account.free
            assert (avail, held, credited, spent) == (account.avail, account.held, account.credited, account.spent)
            assert avail == credited - spent - held >= 0
            mine = [rid for rid in sorted(live) if rid[0] == name]
            kept = [holds.read(self.command("GET", hold_key(rid))) for rid in mine]
            assert held == sum(hold.amount_nanos for hold in kept if hold)
            assert all(hold and hold.account == name for hold in kept)
            assert slots == len(mine) == InUse.read(self.command("GET", keyspace.line(P, f"line-{name}"))).live
            assert spent == sum(each.charge_nanos for each in posted if each.id[0] == name)
        for rid, request in self.requests.items():
            ends = [each.end for each in posted if each.id == rid]
            assert ends == request.ends
            assert sum(end in ("settled", "voided", "abandoned", "orphan") for end in ends) <= 1
            assert ends.count("late") <= 1


@pytest.mark.timeout(0 if os.environ.get("WEIR_MODEL") else 120)
def test_the_books_in_any_order(shared_url: str) -> None:
    Machine.url, Machine.loop = shared_url, asyncio.new_event_loop()
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    profile = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None, suppress_health_check=checks
    )
    try:
        run_state_machine_as_test(Machine, settings=profile)
    finally:
        Machine.loop.close()
