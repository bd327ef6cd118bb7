"""What callers and provider saw, against both books of a whole site."""

from bench.provider import ScriptedProvider
from ledger import keyspace
from ledger.audit import audit
from tests.faults.http_callers import INPUT_NANOS, OUTPUT_NANOS, Callers
from tests.faults.options import Tally
from tests.faults.oracle import drained, shown
from tests.faults.site import Running
from tests.stack import eventually

CREDIT_NANOS = 1_000_000 * 10**9


async def conclude(
    tally: Tally, here: Running, callers: Callers, provider: ScriptedProvider, *, granted: int = 0, died: bool = False
) -> None:
    """Everything answered is charged as answered; without a dead gateway, everything billed is charged.

    `died`: gateways were killed. What such a one had not settled is abandoned: never lost from the books, and at the
    operator's cost, not the caller's.
    """
    if died:
        tally.note(left_by_the_dead=await here.abandon_what_is_left())

    async def held() -> int:
        return sum([await here.redis.command("ZCARD", keyspace.due(p)) for p in keyspace.PARTITIONS])

    await eventually(held, lambda count: count == 0, seconds=60)
    await drained(here.redis)
    ends: dict[str, list[str]] = {}
    charged: dict[str, int] = {}
    async for event in here.cold.usage.find({"account": here.customer.id}):
        ends.setdefault(event["request_id"], []).append(event["end"])
        charged[event["request_id"]] = charged.get(event["request_id"], 0) + event["charge_nanos"]
    abandoned = {rid for rid, found in ends.items() if found == ["abandoned"]}
    primary = {rid: [end for end in found if end != "late"] for rid, found in ends.items()}
    lost = [rid for rid in callers.paid if not primary.get(rid) or (rid in abandoned and not died)]
    double = [rid for rid, found in primary.items() if len(found) != 1]
    difference = sum(
        abs(charged[rid] - cost) for rid, cost in callers.paid.items() if rid in charged and rid not in abandoned
    )
    billed = provider.stats.billed_prompt_tokens * INPUT_NANOS + provider.stats.billed_completion_tokens * OUTPUT_NANOS
    spent = sum(charged.values())
    if died:
        assert spent <= billed, f"charged {spent}, billed {billed}"
    else:
        difference += abs(billed - spent)
    balance = await here.site.balance(here.customer.id)
    credited = CREDIT_NANOS + granted
    difference += abs(balance["spent_nanos"] - spent) + abs(balance["credited_nanos"] - credited)
    difference += abs(balance["available_nanos"] - (credited - spent)) + balance["held_nanos"]
    report = await audit(here.cold, here.redis)
    tally.note(
        answered=len(callers.paid),
        billed=provider.stats.billed_requests,
        charged=sum(charge > 0 for charge in charged.values()),
        abandoned=len(abandoned),
        statuses=dict(callers.statuses),
        requests_per_s=callers.requests_per_s,
        lost=len(lost),
        double=len(double),
        difference_nanos=difference,
        audit_agrees=int(report.agrees),
    )
    tally.at_least(answered=1, audit_agrees=1)
    tally.at_most(lost=0, double=0, difference_nanos=0)
    assert report.agrees, shown(report)
    assert not lost, [(rid, ends.get(rid)) for rid in lost[:3]]
