"""`weir audit`: finds the stores, asks both books, and prints what a person can read."""

from typing import Any

import msgspec

from ledger.audit import Report
from ledger.audit import audit as compare
from ledger.money import format_usd
from weir import books


async def audit() -> Report:
    """The report; one line and exit status 2 when a store does not answer."""
    async with books.opened("weir-audit") as (cold, redis):
        return await compare(cold, redis)


def as_dict(report: Report) -> dict[str, Any]:
    return {"agrees": report.agrees, **msgspec.to_builtins(report)}


def table(report: Report) -> str:
    """The report as lines."""
    rows = [
        ("accounts", f"{report.accounts:,}"),
        ("credited", f"${format_usd(report.credited_nanos)}"),
        ("spent", f"${format_usd(report.spent_nanos)}"),
        ("held", f"${format_usd(report.held_nanos)}"),
        ("available", f"${format_usd(report.available_nanos)}"),
        ("events in MongoDB", f"{report.events:,}"),
        ("debits", f"{report.debits:,}"),
        ("statements", f"{report.statements:,}"),
        ("days recomputed", f"{report.days_recomputed:,}"),
        ("events on the way", f"{report.events_waiting:,}"),
        ("events missing", f"{report.missing_events:,}"),
        ("events parked", f"{report.dead_events:,}"),
    ]
    lines = [f"{name:<18} {value:>20}" for name, value in rows]
    lines += [
        f"{d.account}: {d.what} is {d.redis:,} in {d.where} and should be {d.expected:,}" for d in report.differences
    ]
    lines.append("The books agree." if report.agrees else "The books DIFFER.")
    return "\n".join(lines)
