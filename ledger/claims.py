"""Claims: settlements that came when Redis could no longer tell whether they had been posted before.

Redis remembers an ended request for an hour, MongoDB for as long as the event is kept. A claim is therefore judged by
MongoDB, and only once every event that was waiting has got there; then it is posted or dropped, once.
"""

from typing import Any

import msgspec

from ledger import events, holds, hot, keyspace, log
from ledger.cold import ColdBook, Document
from ledger.facts import encode as encode_facts
from ledger.hot import Place
from ledger.link import Caller
from ledger.settlement import Settlement
from ledger.survey import survey

_AT_ONCE = 100


async def judge(cold: ColdBook, redis: Caller) -> int:
    """Judge every claim whose partition has no event waiting; how many were posted."""
    claims = await survey(
        lambda p: redis.command("XRANGE", keyspace.claims(p), "-", "+", "COUNT", _AT_ONCE, key=keyspace.claims(p))
    )
    posted = 0
    for partition, entries in claims.items():
        if entries and await redis.command("XLEN", keyspace.usage(partition)) == 0:
            for entry_id, flat in entries:
                posted += await _judge_one(cold, redis, partition, entry_id, flat[1])
    return posted


async def _judge_one(cold: ColdBook, redis: Caller, partition: str, entry_id: bytes, payload: bytes) -> bool:
    key = keyspace.claims(partition)
    claim = msgspec.json.decode(payload, type=Settlement)
    known = {d["end"]: d async for d in cold.usage.find({"_id": {"$in": events.ids_of(claim.rid)}})}
    lost = not claim.void and not set(known) - {"abandoned"}
    if lost:
        if "abandoned" in known:
            await _remember_abandoned(redis, claim, known["abandoned"])
        seconds, micros = await redis.command("TIME", key=key)
        # MongoDB has said that it was never posted, so its age is no reason for doubt any more.
        now_us = int(seconds) * 1_000_000 + int(micros)
        ended: Any = hot.ended(
            await hot.settling(
                redis,
                Place(partition, claim.account, claim.key, claim.line),
                claim.rid,
                cost_nanos=claim.cost_nanos,
                event=encode_facts(claim.facts),
                admitted_us=now_us,
                tokens=claim.tokens,
            )
        )
        log.get().warning("claim_posted", rid=claim.rid, account=claim.account, outcome=ended.end)
    await redis.command("XDEL", key, entry_id)
    return lost


async def _remember_abandoned(redis: Caller, claim: Settlement, event: Document) -> None:
    """Put back the mark that has expired, so that what was charged when it was abandoned is not charged again."""
    mark = holds.swept(int(event["charge_nanos"]), int(event["shortfall_nanos"]))
    await redis.command("SET", keyspace.hold(claim.partition, claim.rid), mark, "PX", holds.MARK_MS)
