"""After the load: does the bill agree with what the upstream really answered?"""

import time
from collections import Counter

import msgspec

from bench.nginx import COMPLETION_TOKENS, PROMPT_TOKENS, AnswerCounter
from bench.stack import INPUT_NANOS, OUTPUT_NANOS, Stack

COST_NANOS = PROMPT_TOKENS * INPUT_NANOS + COMPLETION_TOKENS * OUTPUT_NANOS
PATIENCE_S = 20.0


class Audit(msgspec.Struct):
    answered: int
    """By the upstream, as it counts itself."""
    events: dict[str, int]
    """Usage events by how the request ended."""
    cost_nanos: int
    """What the answered requests cost at the model's price."""
    charged_nanos: int
    """What the events say was taken."""
    balance: dict[str, int]

    @property
    def problems(self) -> list[str]:
        """Each in one line; none means that the books agree to the nano-dollar."""
        settled, balance = self.events.get("settled", 0), self.balance
        found = []
        if settled != self.answered:
            found.append(f"the upstream answered {self.answered:,} requests, and {settled:,} are settled")
        if self.charged_nanos != self.cost_nanos:
            found.append(f"requests cost {self.cost_nanos:,} nano-USD, charged were {self.charged_nanos:,}")
        if balance["spent_nanos"] != self.charged_nanos:
            found.append(f"the account spent {balance['spent_nanos']:,}, its events {self.charged_nanos:,}")
        if balance["held_nanos"]:
            found.append(f"{balance['held_nanos']:,} nano-USD are still held")
        rest = balance["credited_nanos"] - balance["spent_nanos"] - balance["held_nanos"]
        if balance["available_nanos"] != rest:
            found.append(f"available is {balance['available_nanos']:,}, credited - spent - held is {rest:,}")
        return found


def audit(stack: Stack, answered: AnswerCounter) -> Audit:
    """The ledger may still be writing: look again, for a while, before calling it a difference."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        stack.wait_until_drained()
        result = _audit(stack, answered)
        if not result.problems or time.monotonic() > deadline:
            return result
        time.sleep(1)


def _audit(stack: Stack, answered: AnswerCounter) -> Audit:
    ends: Counter[str] = Counter()
    charged = 0
    for event in stack.events():
        ends[event["end"]] += 1
        charged += event["charge_nanos"]
    count = answered.read()
    return Audit(count, dict(ends), count * COST_NANOS, charged, stack.balance())
