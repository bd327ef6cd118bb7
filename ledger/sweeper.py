"""Holds whose lease has ended: charge what was reported, free the money and the slot. Idempotent by the hold's state."""

import asyncio

from ledger import holds, hot, keyspace, metrics
from ledger.hot import Place
from ledger.link import Caller
from ledger.survey import survey

_AT_ONCE = 200


async def sweep(redis: Caller) -> int:
    """Abandon every request that is due by the server's clock; how many were."""
    seconds, micros = await redis.command("TIME")
    now_us = int(seconds) * 1_000_000 + int(micros)
    due = await survey(lambda p: redis.command("ZRANGEBYSCORE", keyspace.due(p), "-inf", now_us, "LIMIT", 0, _AT_ONCE))
    found = [(p, rid.decode()) for p, rids in due.items() for rid in rids]
    swept = await asyncio.gather(*(_sweep_one(redis, partition, rid) for partition, rid in found))
    metrics.HOLDS_SWEPT.inc(sum(swept))
    return sum(swept)


async def _sweep_one(redis: Caller, partition: str, rid: str) -> bool:
    hold = holds.read(await redis.command("GET", keyspace.hold(partition, rid)))
    # A hold that is gone leaves only its entry in `due`; the script removes that, whoever's it was.
    whose = (hold.account, hold.key, hold.line) if hold else ("", "", "")
    return await hot.sweep(redis, Place(partition, *whose), rid) is not None


async def measure(redis: Caller) -> None:
    """How many holds live and how many events wait, over all partitions."""
    holds = await survey(lambda p: redis.command("ZCARD", keyspace.due(p)))
    waiting = await survey(lambda p: redis.command("XLEN", keyspace.usage(p)))
    metrics.HOLDS.set(sum(holds.values()))
    metrics.BACKLOG.set(sum(waiting.values()))
