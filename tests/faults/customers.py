"""Accounts and keys as the admin API writes them, straight into MongoDB; whoever opens the partitions publishes them."""

from dataclasses import dataclass
from random import Random
from typing import Any

from bson.int64 import Int64

from ledger import keys, keyspace
from ledger.cold import ColdBook, now
from ledger.hot import Place, Versions
from ledger.link import Link
from tests.stack import eventually

CREDIT = 10**15  # nano-USD: a million dollars, more than any run spends


@dataclass
class Customer:
    """An account with one key, and the versions in force."""

    place: Place
    credited: int
    config: int = 1
    key_version: int = 1

    @property
    def versions(self) -> Versions:
        return Versions(self.key_version, 1, self.config)


async def make(
    cold: ColdBook, random: Random, count: int, *, credited: int = CREDIT, keys_each: int = 1
) -> list[Customer]:
    """So many accounts on any partitions, each with a key or more; a customer is a key and its account."""
    made, accounts, api_keys = [], [], []
    for _ in range(count):
        partition, account = random.choice(keyspace.PARTITIONS), f"acct_{keys.new_id()}"
        places = [Place(partition, account, key, f"line_{key}") for key in (keys.new_id() for _ in range(keys_each))]
        made += [Customer(place, credited) for place in places]
        accounts.append(_account(places[0], credited))
        api_keys += map(_api_key, places)
    await cold.grants.insert_many([_grant(account) for account in accounts], ordered=False)
    await cold.accounts.insert_many(accounts, ordered=False)
    await cold.api_keys.insert_many(api_keys, ordered=False)
    return made


async def published(cold: ColdBook) -> None:
    """Until the worker has put everything in force."""

    async def dirty() -> int:
        waiting = await cold.accounts.count_documents({"dirty": True})
        return waiting + await cold.api_keys.count_documents({"dirty": True})

    await eventually(dirty, lambda count: count == 0, seconds=120)


async def see_config(redis: Link, customers: list[Customer]) -> None:
    """Take note of the config version that is in force."""
    raw = await redis.command("HGET", keyspace.meta(customers[0].place.partition), "config")
    for customer in customers:
        customer.config = int(raw)


def _account(place: Place, credited: int) -> dict[str, Any]:
    return {
        "_id": place.account,
        "name": "faults",
        "partition": place.partition,
        "status": "active",
        "limits": {},
        "policy": {},
        "version": 1,
        "grant_number": 1,
        "credited_nanos": Int64(credited),
        "dirty": True,
    }


def _grant(account: dict[str, Any]) -> dict[str, Any]:
    return {
        "_id": f"{account['_id']}:first",
        "account": account["_id"],
        "number": 1,
        "amount_nanos": account["credited_nanos"],
        "kind": "top_up",
        "reference": None,
        "created_at": now(),
    }


def _api_key(place: Place) -> dict[str, Any]:
    return {
        "_id": place.key,
        "account": place.account,
        "partition": place.partition,
        "line": place.line,
        "digest": "0" * 64,
        "pepper": "1",
        "status": "active",
        "limits": {},
        "policy": {},
        "version": 1,
        "dirty": True,
    }
