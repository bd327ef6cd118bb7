"""T10: the worker dies between MongoDB's answer and its own deletion, and every event comes again."""

import asyncio
from pathlib import Path
from typing import Any

from ledger import keyspace
from ledger.cold import ColdBook
from ledger.link import Link
from ledger.postings import Posting
from tests.entries import entry, flat
from tests.faults import oracle
from tests.faults.options import Tally, asked
from tests.faults.proxy import FaultProxy
from tests.faults.servers import Kind, RedisServer, started
from tests.faults.world import lead_again, ledger_process, world
from tests.stack import eventually

DEATHS = asked(full=100, short=5)
CONFLICTS = asked(full=100, short=10)


async def test_t10_duplicates(main_kind: Kind, tally: Tally, tmp_path: Path, mongo_url: str) -> None:
    redis = RedisServer(main_kind, tmp_path / "redis")
    async with started(redis), FaultProxy(redis.port, tally.random) as line:
        ledger = ledger_process(tmp_path, f"redis://127.0.0.1:{line.port}", mongo_url)
        async with started(ledger), world(tally, redis.url, mongo_url, callers=12, pace_s=0.02) as here:
            async with here.load.running():
                await here.load.admits()
                for _ in range(DEATHS):
                    await asyncio.sleep(tally.random.uniform(0.05, 0.2))
                    await _deletes(line)
                    ledger.kill()
                    line.watch = lambda _chunk: False
                    tally.add("deaths")
                    tally.add("delivered_again", await _written(here.cold, here.redis))
                    await lead_again(ledger, here.cold)
            tally.note(server=main_kind.name, scripts_per_s=here.load.scripts_per_s)
            tally.at_least(deaths=DEATHS, delivered_again=DEATHS)
            await oracle.conclude(tally, here.cold, here.redis, here.customers, here.load.records)
            tally.note(conflicts_raised=await _conflicts(here.cold, here.redis))
            tally.at_least(conflicts_raised=CONFLICTS)
    tally.check()


async def _deletes(line: FaultProxy) -> None:
    """Until the worker has written a batch and says so: that word, and its connection, are lost."""
    lost = asyncio.Event()

    def watch(chunk: bytes) -> bool:
        if b"XDEL" in chunk:
            lost.set()
        return lost.is_set()

    line.watch = watch
    await asyncio.wait_for(lost.wait(), 20)


async def _written(cold: ColdBook, redis: Link) -> int:
    """Events that MongoDB has and that are still in their streams."""
    streams = await asyncio.gather(*(redis.command("XRANGE", keyspace.usage(p), "-", "+") for p in keyspace.PARTITIONS))
    entries = [dict(zip(words[::2], words[1::2], strict=True)) for stream in streams for _, words in stream]
    rids = [Posting.read(each).id for each in entries]
    return await cold.usage.count_documents({"request_id": {"$in": rids}})


async def _conflicts(cold: ColdBook, redis: Link) -> int:
    """The same requests once more with another amount: each is parked with both, and the first stays as it is."""
    kept = await cold.usage.find({"end": "settled"}).limit(CONFLICTS).to_list()
    for event in kept:
        await redis.command("XADD", keyspace.usage(event["partition"]), "*", *flat(_dearer(event)))
    await eventually(cold.dead_events.estimated_document_count, lambda count: count >= len(kept), seconds=30)
    await oracle.drained(redis)
    for event in kept:
        assert await cold.usage.find_one({"_id": event["_id"]}) == event
    return await cold.dead_events.count_documents({"reason": "conflict"})


def _dearer(event: dict[str, Any]) -> dict[bytes, bytes]:
    """The stream entry of a document, a nano-dollar dearer."""
    facts = f'"account":"{event["account"]}","api_key":"{event["api_key"]}","model":"m","dialect":"openai"'
    text = "{" + facts + ',"endpoint":"chat","price_version":1,"streamed":false,"outcome":"complete"}'
    place = {"seq": event["seq"], "epoch": event["epoch"], "rid": event["request_id"]}
    money = {"charge": event["charge_nanos"] + 1, "spent": event["spent_after_nanos"]}
    return entry(text.encode(), **place, **money, at=int(event["at"].timestamp() * 1_000_000))
