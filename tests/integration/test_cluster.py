"""The books on a real Valkey Cluster, under load: a primary killed, a slot moved; exact to the nano-dollar afterwards."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.crc import key_slot

from bench.provider import ScriptedProvider
from gateway.settler import Settler
from gateway.spill import Spill
from ledger import hot, keyspace, publish, request_id
from ledger.audit import audit
from ledger.cluster import ClusterLink
from ledger.cold import ColdBook, now
from ledger.facts import Facts, encode
from ledger.hot import Fenced, Offer, Place, Versions
from ledger.link import Caller, StoreUnavailable
from ledger.settlement import Settlement
from ledger.vault import Vault
from ledger.worker import Worker
from tests.cluster import Cluster, valkey_cluster
from tests.stack import eventually, http, running_stack

CREDIT = 10**12
PLACES = [Place(f"{n * 21:02x}", f"acct_c{n}", f"key{n}", f"key{n}") for n in range(12)]
CALLERS = 24


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with valkey_cluster(tmp_path / "cluster") as running:
        yield running


async def make_accounts(cold: ColdBook, redis: Caller) -> None:
    for place in PLACES:
        common = {
            "partition": place.partition,
            "status": "active",
            "policy": {},
            "limits": {},
            "version": 1,
            "dirty": False,
        }
        account = {**common, "_id": place.account, "grant_number": 1, "credited_nanos": CREDIT}
        key = {**common, "_id": place.key, "account": place.account, "line": place.line, "digest": "d", "pepper": "1"}
        await cold.accounts.insert_one(account)
        await cold.api_keys.insert_one(key)
        grant = {"account": place.account, "number": 1, "amount_nanos": CREDIT, "created_at": now()}
        await cold.grants.insert_one({"_id": f"{place.account}:1", **grant})
        await publish.account(redis, account)
        await publish.api_key(redis, key)


class Load:
    """Requests of many accounts through admit and settle, with an account of its own of what was acknowledged."""

    def __init__(self, redis: Caller, settler: Settler) -> None:
        self._redis = redis
        self._settler = settler
        self._stop = asyncio.Event()
        self.settled: dict[str, int] = {}
        self.refused = 0

    async def run(self, seed: int) -> None:
        await asyncio.gather(*(self._caller(random.Random(seed + n)) for n in range(CALLERS)))

    def stop(self) -> None:
        self._stop.set()

    async def _caller(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            place, rid, cost = chance.choice(PLACES), request_id.new(), chance.randrange(1, 900)
            facts = Facts(
                account=place.account,
                api_key=place.key,
                model="m",
                dialect="openai",
                endpoint="chat.completions",
                price_version=1,
                streamed=False,
                outcome="complete",
            )
            try:
                raw = await self._redis.command("HGET", keyspace.meta(place.partition), "config")
                versions = Versions(1, 1, int(raw or 0))
                reply = await hot.admit(self._redis, place, rid, versions, Offer([1_000], 1, facts=encode(facts)))
            except (StoreUnavailable, Fenced) as error:
                self.refused += 1
                if isinstance(error, StoreUnavailable):  # there may be a hold, so a void goes after it
                    began_us = request_id.began_ms(rid) * 1000
                    void = Settlement(
                        rid, *place, cost_nanos=0, tokens=None, admitted_us=began_us, facts=facts, void=True
                    )
                    self._settler.put(void)
                await asyncio.sleep(0.01)
                continue
            if isinstance(reply, hot.Admitted):
                self._settler.put(
                    Settlement(rid, *place, cost_nanos=cost, tokens=None, admitted_us=reply.at_us, facts=facts)
                )
                self.settled[rid] = cost
            await asyncio.sleep(chance.uniform(0, 0.08))  # some 500 a second: enough to be hit, little to wait for


@asynccontextmanager
async def loaded(cluster: Cluster, cold: ColdBook, vault: Vault, folder: Path) -> AsyncIterator[Load]:
    """A worker and a load on the cluster; at the end everything has to add up."""
    await publish.ensure_pepper(cold, vault)
    async with (
        ClusterLink(cluster.url, deadline_s=5) as redis,
        ClusterLink(cluster.url, deadline_s=5) as barriers,
        ClusterLink(cluster.url, deadline_s=10) as own,
    ):
        ready = asyncio.Event()
        worker = Worker(cold, own, None, on_ready=ready.set)
        working = asyncio.create_task(worker.run())
        await asyncio.wait_for(ready.wait(), 30)
        await make_accounts(cold, redis)
        settler = Settler(redis, spill=Spill(folder), replicas=1, barriers=barriers)
        settler.start()
        load = Load(redis, settler)
        running = asyncio.create_task(load.run(seed=7))
        try:
            await eventually(lambda: count(load), lambda n: n > 200)
            yield load
            before = len(load.settled)
            await eventually(lambda: count(load), lambda n: n > before + 500, seconds=90)
        finally:
            load.stop()
            await running
        await eventually(lambda: left(settler), lambda n: n == 0, seconds=60)
        await check(cold, redis, load)
        assert await settler.close(5) == 0
        worker.stop()
        await working


async def count(load: Load) -> int:
    return len(load.settled)


async def left(settler: Settler) -> int:
    return len(settler._waiting) + len(settler._kept)


async def check(cold: ColdBook, redis: Caller, load: Load) -> None:
    """Lost 0, double 0, difference 0."""

    async def missing() -> int:
        return len(load.settled) - await cold.usage.count_documents({"_id": {"$in": list(load.settled)}})

    await eventually(missing, lambda n: n == 0, seconds=60)

    async def holding() -> int:
        held = await asyncio.gather(*(redis.command("ZCARD", keyspace.due(p.partition)) for p in PLACES))
        return int(sum(held))

    await eventually(holding, lambda n: n == 0, seconds=75)
    report = await audit(cold, redis)
    assert report.agrees, report
    assert report.held_nanos == 0
    assert report.spent_nanos == sum(load.settled.values())


async def test_a_primary_is_killed(cluster: Cluster, cold: ColdBook, vault: Vault, tmp_path: Path) -> None:
    async with loaded(cluster, cold, vault, tmp_path / "spill") as load:
        slot = key_slot(f"p{PLACES[0].partition}".encode())
        victim = cluster.owner(slot)
        await asyncio.to_thread(victim.kill)

        async def replaced() -> bool:
            return (await asyncio.to_thread(cluster.owner, slot)) is not victim

        await eventually(replaced, bool, seconds=90)
        assert load.refused, "the kill was under load"
        # The promoted server has no replica, so what it acknowledges is kept until the killed one is back and follows it.
        await asyncio.to_thread(victim.start_again)


async def test_a_slot_is_moved(cluster: Cluster, cold: ColdBook, vault: Vault, tmp_path: Path) -> None:
    async with loaded(cluster, cold, vault, tmp_path / "spill"):
        for place in PLACES[:3]:
            slot = key_slot(f"p{place.partition}".encode())
            source = cluster.owner(slot)
            target = next(node for node in cluster.nodes[:3] if node is not source)
            await asyncio.to_thread(cluster.move, slot, source, target)


async def test_a_key_is_looked_up_while_its_account_has_moved_on_already(cluster: Cluster) -> None:
    """The script makes the account's key itself, so the server cannot tell beforehand that half of it is elsewhere."""
    place, slot = PLACES[0], key_slot(f"p{PLACES[0].partition}".encode())
    account = keyspace.account(place.partition, place.account)
    async with ClusterLink(cluster.url) as link:
        await link.command("HSET", keyspace.api_key(place.partition, place.key), "acct", place.account)
        await link.command("HSET", account, "ver", "1")
        await link.command("HSET", keyspace.meta(place.partition), "config", "3")
        source = cluster.owner(slot)
        target = next(node for node in cluster.nodes[:3] if node is not source)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        source.ask("MIGRATE", "127.0.0.1", target.server.port, "", 0, 5000, "KEYS", account)
        looking = asyncio.create_task(hot.look(link, place.partition, place.key))
        await asyncio.wait((looking,), timeout=0.1)
        cluster.move(slot, source, target)
        seen = await looking
    assert (seen.config, seen.key[2], seen.account[0]) == (3, place.account.encode(), b"1")


async def test_the_whole_product_on_a_cluster(cluster: Cluster, mongo_url: str, tmp_path: Path) -> None:
    urls = {"WEIR_REDIS_URL": cluster.url, "WEIR_MONGO_URL": mongo_url}
    async with ScriptedProvider() as provider:
        with running_stack(tmp_path / "weir", **urls) as stack:
            model = await stack.model(provider.url)
            customers = [await stack.customer("1") for _ in range(6)]
            async with http() as client:
                for customer in customers:
                    answer = await client.post(
                        f"{stack.base_url}/chat/completions",
                        json={"model": model, "messages": [{"role": "user", "content": "Hello"}]},
                        headers={"authorization": f"Bearer {customer.key}"},
                    )
                    assert answer.status_code == 200, answer.text
            for customer in customers:
                [event] = await stack.events(customer.id, 1)
                assert (await stack.settled(customer.id))["spent_nanos"] == event["charge_nanos"] == 52_500
            assert stack.audit()["accounts"] == 6
