"""Accounts and keys as the admin API makes them: into MongoDB, then in force."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from bson.int64 import Int64

from ledger import keys, keyspace, publish, reopen
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
    config: int
    key_version: int = 1

    @property
    def versions(self) -> Versions:
        return Versions(self.key_version, 1, self.config)


async def make(
    cold: ColdBook, redis: Link, random: Random, count: int, *, credited: int = CREDIT, keys_each: int = 1
) -> list[Customer]:
    """So many accounts on any partitions, each with a key or more, in force; a customer is a key and its account."""
    await eventually(lambda: reopen.closed_partitions(redis), lambda closed: not closed, seconds=60)
    config = int(await redis.command("HGET", keyspace.meta(keyspace.PARTITIONS[0]), "config"))
    made: list[Customer] = []
    accounts: list[dict[str, Any]] = []
    api_keys: list[dict[str, Any]] = []
    for _ in range(count):
        partition, account = random.choice(keyspace.PARTITIONS), f"acct_{keys.new_id()}"
        places = [Place(partition, account, key, f"line_{key}") for key in (keys.new_id() for _ in range(keys_each))]
        made += [Customer(place, credited, config) for place in places]
        accounts.append(_account(places[0], credited))
        api_keys += map(_api_key, places)
    await cold.grants.insert_many([_grant(account) for account in accounts], ordered=False)
    await cold.accounts.insert_many(accounts, ordered=False)
    await cold.api_keys.insert_many(api_keys, ordered=False)
    await _in_force(redis, accounts, publish.account)
    await _in_force(redis, api_keys, publish.api_key)
    return made


async def _in_force(
    redis: Link, documents: list[dict[str, Any]], put: Callable[[Link, Any], Awaitable[object]]
) -> None:
    for start in range(0, len(documents), 500):
        await asyncio.gather(*(put(redis, document) for document in documents[start : start + 500]))


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
        "dirty": False,
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
        "dirty": False,
    }
