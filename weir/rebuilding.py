"""`weir rebuild`: refill an empty Redis from MongoDB, under the ledger's lease; says what it did."""

import asyncio
import contextlib
import sys
import time
from typing import Any

import msgspec

from ledger import publish, reopen
from ledger.cold import ColdBook
from ledger.lease import LEASE_MS, Lease
from ledger.link import Caller
from ledger.money import format_usd
from ledger.process import fail
from weir import books


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild did. No partition: nothing was closed, so there was nothing to do."""

    partitions: int
    rebuilt: int
    adopted: int
    accounts: int
    api_keys: int
    marks: int
    credited_nanos: int
    spent_nanos: int
    seconds: float


async def rebuild(*, quiet: bool) -> Rebuilt:
    """Open every closed partition; one line and exit status 2 when a store does not answer or a worker leads."""
    async with books.opened("weir-rebuild") as (cold, redis):
        try:
            await cold.prepare()
            return await under_lease(cold, redis, progress=_silent if quiet else _shown)
        except reopen.Refused as refused:
            raise fail(str(refused)) from None


async def under_lease(cold: ColdBook, redis: Caller, *, progress: Any) -> Rebuilt:
    """Take the lease, keep it, open what is closed, let it go. A worker that leads does all this by itself."""
    lease = Lease(cold)
    if not await lease.hold():
        holder = await cold.leases.find_one({"_id": "ledger"}) or {}
        raise fail(
            f"the ledger worker {holder.get('holder', '')} leads, and refills Redis by itself; stop it to use this command"
        )
    keeping = asyncio.create_task(_keep(lease))
    began = time.monotonic()
    try:
        closed = await reopen.closed_partitions(redis)
        report = reopen.Report(0, 0, 0)
        if closed:
            report = await reopen.reopen(cold, redis, closed, term=lease.term, progress=progress)
            await publish.complete_pending(cold, redis)
    except reopen.Superseded:
        raise fail("another ledger worker took over meanwhile, and goes on with it") from None
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await lease.release()
    done = report.restored
    return Rebuilt(
        partitions=report.partitions,
        rebuilt=report.rebuilt,
        adopted=report.adopted,
        accounts=done.accounts,
        api_keys=done.api_keys,
        marks=done.marks,
        credited_nanos=done.credited_nanos,
        spent_nanos=done.spent_nanos,
        seconds=round(time.monotonic() - began, 3),
    )


async def _keep(lease: Lease) -> None:
    while True:
        await asyncio.sleep(LEASE_MS / 4000)
        await lease.hold()


def _silent(_done: int, _of: int) -> None:
    """With --json there is one line, and it comes last."""


def _shown(done: int, of: int) -> None:
    end = "\n" if done == of else ""
    if sys.stderr.isatty() or end:
        print(f"\r{done:,} of {of:,} records", end=end, file=sys.stderr, flush=True)


def table(done: Rebuilt) -> str:
    """The same as lines."""
    if not done.partitions:
        return "Every partition is open: there was nothing to rebuild."
    rows = [
        ("partitions opened", f"{done.partitions:,}"),
        ("of them emptied", f"{done.rebuilt:,}"),
        ("accounts", f"{done.accounts:,}"),
        ("API keys", f"{done.api_keys:,}"),
        ("recent requests", f"{done.marks:,}"),
        ("events adopted", f"{done.adopted:,}"),
        ("credited", f"${format_usd(done.credited_nanos)}"),
        ("spent", f"${format_usd(done.spent_nanos)}"),
        ("seconds", f"{done.seconds:.1f}"),
    ]
    return "\n".join(f"{name:<18} {value:>20}" for name, value in rows)


def as_dict(done: Rebuilt) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(done)
    return built
