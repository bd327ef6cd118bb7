"""What the callers were told, against both books: nothing lost, nothing twice, no nano-dollar more or less."""

import asyncio
from dataclasses import dataclass
from functools import partial
from operator import gt

from ledger import balances, keyspace
from ledger.audit import Report, audit
from ledger.balances import Balance
from ledger.cold import ColdBook
from ledger.lines import InUse
from ledger.link import Link
from tests.faults.customers import Customer
from tests.faults.load import Record
from tests.faults.options import Tally
from tests.stack import eventually


@dataclass
class Verdict:
    """The three numbers that must be 0, and what stands behind them."""

    lost: int = 0
    double: int = 0
    difference_nanos: int = 0
    example: str = ""

    def blame(self, what: str, rid: str) -> None:
        setattr(self, what, getattr(self, what) + 1)
        self.example = self.example or f"{what}: {rid}"


async def drained(redis: Link, *, seconds: float = 60) -> None:
    """Until MongoDB has every event, and every claim is judged; fails after so many `seconds` in which nothing moved."""
    streams = [name(p) for p in keyspace.PARTITIONS for name in (keyspace.usage, keyspace.claims)]

    async def waiting() -> int:
        return sum(map(int, await asyncio.gather(*(redis.command("XLEN", stream) for stream in streams))))

    left = await waiting()
    while left:
        left = await eventually(waiting, partial(gt, left), seconds=seconds)


async def verdict(cold: ColdBook, redis: Link, customers: list[Customer], records: dict[str, Record]) -> Verdict:
    """Compare every acknowledged end with MongoDB, and the sums with Redis. Everything must have been drained."""
    found = Verdict()
    charged: dict[str, int] = dict.fromkeys(records, 0)
    ends: dict[str, list[str]] = {rid: [] for rid in records}
    numbers: set[tuple[str, int, int]] = set()
    fields = {"request_id": 1, "charge_nanos": 1, "end": 1, "partition": 1, "epoch": 1, "seq": 1}
    async for event in cold.usage.find({}, fields):
        rid = event["request_id"]
        number = (event["partition"], event["epoch"], event["seq"])
        if rid not in records or number in numbers:
            found.blame("double", rid)  # nobody asked for it, or its number was given away twice
            continue
        numbers.add(number)
        charged[rid] += event["charge_nanos"]
        ends[rid].append(event["end"])
    for rid, record in records.items():
        due = record.paid or 0
        primary = [end for end in ends[rid] if end != "late"]
        if not primary and (record.paid is not None):
            found.blame("lost", rid)
        if len(primary) > 1 or ends[rid].count("late") > 1:
            found.blame("double", rid)
        found.difference_nanos += abs(charged[rid] - due)
        if charged[rid] != due or (record.end == "settled" and record.said_nanos != due):
            found.example = found.example or f"{rid}: {record} is {charged[rid]} {ends[rid]}"
    await _balances(redis, customers, records, found)
    return found


async def _balances(redis: Link, customers: list[Customer], records: dict[str, Record], found: Verdict) -> None:
    spent = {customer.place.account: 0 for customer in customers}
    for record in records.values():
        spent[record.place.account] += record.paid or 0
    for customer in customers:
        account = customer.place.account
        credited, paid, record = await redis.command(
            "HMGET", keyspace.account(customer.place.partition, account), "credited", "spent", balances.FIELD
        )
        has = Balance.read(record)
        kept = {"credited": int(credited or 0), "spent": int(paid or 0)}
        kept |= {"held": has.held_nanos, "avail": has.available_nanos, "live": has.live}
        due = spent[account]
        should = {"credited": customer.credited, "spent": due, "held": 0, "avail": customer.credited - due, "live": 0}
        found.difference_nanos += sum(abs(kept[name] - should[name]) for name in should)
        if kept != should:
            found.example = found.example or f"{account}: {kept} should be {should}"
        line = await redis.command("GET", keyspace.line(customer.place.partition, customer.place.line))
        if live := InUse.read(line).live:
            found.example = found.example or f"{account}: its key has {live} requests in flight"


def shown(report: Report) -> str:
    """What an audit found, without every account of it."""
    return f"{len(report.differences)} differences, {report.missing_events} missing; {report.differences[:3]}"


async def conclude(
    tally: Tally, cold: ColdBook, redis: Link, customers: list[Customer], records: dict[str, Record]
) -> Report:
    """The end of every run: drain, compare, audit; three zeros, or the test fails."""
    await drained(redis)
    found = await verdict(cold, redis, customers, records)
    report = await audit(cold, redis)
    tally.note(
        settled=sum(record.paid is not None for record in records.values()),
        voided=sum(record.paid is None for record in records.values()),
        lost=found.lost,
        double=found.double,
        difference_nanos=found.difference_nanos,
        audit_agrees=int(report.agrees),
    )
    tally.at_most(lost=0, double=0, difference_nanos=0)
    tally.at_least(audit_agrees=1, settled=1)
    assert report.agrees, shown(report)
    assert not found.example, found.example
    return report
