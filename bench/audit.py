"""After the load: is every request that an upstream answered charged, exactly, and do both books agree?"""

import subprocess
import sys
import time
from typing import Any

import msgspec
import pymongo

from bench.arena import Arena
from bench.contestants.weir import INPUT_NANOS, OUTPUT_NANOS
from bench.stack import Stack
from bench.upstreams import nginx, writer

PATIENCE_S = 30.0


class Audit(msgspec.Struct):
    answered: int
    """By the upstreams, as they count themselves."""
    streams: int
    """Of these, streams that were sent to their end."""
    events: dict[str, int]
    """Usage events by how the request ended."""
    cost_nanos: int
    """What the answered requests cost at the model's price."""
    charged_nanos: int
    """What the events say was taken."""
    spent_nanos: int
    """What the accounts' balances say was taken."""
    books_agree: bool
    """The verdict of `weir audit`, account by account."""

    @property
    def problems(self) -> list[str]:
        """Each in one line; none means that the books agree to the nano-dollar."""
        settled = self.events.get("settled", 0)
        found = []
        if settled != self.answered:
            found.append(f"the upstreams answered {self.answered:,} requests, and {settled:,} are settled")
        if self.charged_nanos != self.cost_nanos:
            found.append(f"requests cost {self.cost_nanos:,} nano-USD, charged were {self.charged_nanos:,}")
        if self.spent_nanos != self.charged_nanos:
            found.append(f"the accounts spent {self.spent_nanos:,}, their events {self.charged_nanos:,}")
        if not self.books_agree:
            found.append("`weir audit` finds that the books differ")
        return found


def audit(arena: Arena) -> Audit:
    """The ledger may still be writing: look again, for a while, before calling it a difference."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        arena.stack.wait_until_drained()
        result = _audit(arena)
        if not result.problems or time.monotonic() > deadline:
            return result
        time.sleep(1)


def _audit(arena: Arena) -> Audit:
    counter, streams = arena.behind
    plain, sent = counter.read(), streams.sent()
    ends, charged = _events(arena.stack)
    books = _weir_audit(arena.stack)
    cost = plain * (nginx.PROMPT_TOKENS * INPUT_NANOS + nginx.COMPLETION_TOKENS * OUTPUT_NANOS)
    cost += sent.finished * writer.PROMPT_TOKENS * INPUT_NANOS + sent.chunks * OUTPUT_NANOS
    return Audit(
        plain + sent.finished, sent.finished, ends, cost, charged, int(books["spent_nanos"]), bool(books["agrees"])
    )


def _events(stack: Stack) -> tuple[dict[str, int], int]:
    """Of all accounts, as MongoDB has them."""
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(stack.stores["mongo"])
    group = {"_id": "$end", "count": {"$sum": 1}, "charged": {"$sum": "$charge_nanos"}}
    with client:
        found = list(client.get_default_database().usage.aggregate([{"$group": group}]))
    return {one["_id"]: int(one["count"]) for one in found}, sum(int(one["charged"]) for one in found)


def _weir_audit(stack: Stack) -> dict[str, Any]:
    said = subprocess.run(
        [sys.executable, "-m", "weir", "audit", "--json"],
        env=stack.environment(),
        capture_output=True,
        check=False,
        timeout=300,
    ).stdout
    value: dict[str, Any] = msgspec.json.decode(said)
    return value
