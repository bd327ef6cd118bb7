"""Both books with customers in them, and the request's life in one word each."""

from typing import Any

from redis.asyncio import Redis

from ledger import balances, facts, hot, keyspace, publish, reopen
from ledger.audit import Report, audit
from ledger.balances import Balance
from ledger.cold import ColdBook, Document
from ledger.consumer import Consumer
from ledger.facts import Facts
from ledger.hot import Admitted, Ended, Offer, Place, Versions
from ledger.link import Link

P = "5a"
PLACE = Place(P, "acc", "key", "line")


class Ledger:
    """What the tests of the worker's parts share: an account `acc` with $1,000 of nano-dollars on partition 5a."""

    def __init__(self, cold: ColdBook, link: Link, reader: Redis) -> None:
        self.cold = cold
        self.link = link
        self.reader = reader
        self.term = 1

    async def customer(self, credited: int = 1000) -> None:
        common = {"partition": P, "status": "active", "policy": {}, "limits": {}, "version": 1, "dirty": False}
        account = {**common, "_id": "acc", "grant_number": 1, "credited_nanos": credited}
        key = {**common, "_id": "key", "account": "acc", "line": "line", "digest": "d", "pepper": "1"}
        await self.cold.accounts.insert_one(account)
        await self.cold.grants.insert_one({"_id": "acc:g1", "account": "acc", "number": 1, "amount_nanos": credited})
        await self.cold.api_keys.insert_one(key)
        await publish.account(self.link, account)
        await publish.api_key(self.link, key)

    def facts(self, **more: Any) -> bytes:
        told: dict[str, Any] = {
            "account": "acc", "api_key": "key", "model": "m", "dialect": "openai", "endpoint": "chat", "price_version": 1,
            "streamed": False, **more,
        }  # fmt: skip
        return facts.encode(Facts(**told))

    async def admit(self, rid: str, amount: int = 10, *, lease_us: int = hot.LEASE_US) -> Admitted:
        config = int(await self.link.command("HGET", keyspace.meta(P), "config"))
        offer = Offer([amount], 0, 0, self.facts())
        reply = await hot.admit(self.link, PLACE, rid, Versions(1, 1, config), offer, lease_us=lease_us)
        assert isinstance(reply, Admitted), reply
        return reply

    async def settle(self, rid: str, cost: int = 5, *, at_us: int | None = None, event: bytes | None = None) -> Ended:
        seconds, _ = await self.link.command("TIME")
        at_us = int(seconds) * 1_000_000 if at_us is None else at_us
        reply = hot.ended(
            await hot.settling(
                self.link,
                PLACE,
                rid,
                cost_nanos=cost,
                event=self.facts() if event is None else event,
                admitted_us=at_us,
            )
        )
        assert isinstance(reply, Ended)
        return reply

    async def charge(self, *rids: str, cost: int = 5) -> None:
        for rid in rids:
            await self.admit(rid)
            await self.settle(rid, cost)

    def consumer(self) -> Consumer:
        return Consumer(self.cold, self.link, self.reader)

    async def move(self, moving: Consumer | None = None) -> int:
        """Move everything that waits."""
        moving, moved = moving or self.consumer(), 0
        while await self.waiting():
            moved += await moving.step()
        return moved

    async def waiting(self) -> int:
        return int(await self.link.command("XLEN", keyspace.usage(P)))

    async def kept(self) -> list[Document]:
        return await self.cold.usage.find().sort("_id").to_list()

    async def dead(self) -> list[Document]:
        return await self.cold.dead_events.find().sort("_id").to_list()

    async def reopen(self) -> reopen.Report:
        self.term += 1
        return await reopen.reopen(self.cold, self.link, await reopen.closed_partitions(self.link), term=self.term)

    async def balance(self) -> dict[str, int]:
        key = keyspace.account(P, "acc")
        credited, spent, record = await self.link.command("HMGET", key, "credited", "spent", balances.FIELD)
        has = Balance.read(record)
        found = {"avail": has.available_nanos, "held": has.held_nanos, "live": has.live}
        return found | {"credited": int(credited or 0), "spent": int(spent or 0)}

    async def audit(self) -> Report:
        return await audit(self.cold, self.link)
