"""Balances, read from the hot book: the only one that knows what is held now."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from admin_api.fields import money_pair
from ledger import balances, keyspace, reopen
from ledger.cold import Document
from ledger.hot import Fenced
from ledger.link import Caller


@dataclass(frozen=True, slots=True)
class Balance:
    """What Redis has of one account; nano-USD, and counts."""

    credited_nanos: int
    spent_nanos: int
    held_nanos: int
    available_nanos: int
    live: int
    grant_number: int

    def shown(self) -> dict[str, Any]:
        pairs = (
            ("credited", self.credited_nanos),
            ("spent", self.spent_nanos),
            ("held", self.held_nanos),
            ("available", self.available_nanos),
        )
        return {key: value for pair in pairs for key, value in money_pair(*pair).items()}


async def read(redis: Caller, accounts: Sequence[Document]) -> list[Balance]:
    """Their balances, in one round trip; Fenced where this server may not (yet) serve a partition.

    Without that check a Redis that was just wiped would read as a balance of zero.
    """
    partitions = sorted({account["partition"] for account in accounts})
    keys = [keyspace.meta(p) for p in partitions]
    asked = {redis.server_of(key): partition for key, partition in zip(keys, partitions, strict=True)}
    names, metas, rows = await asyncio.gather(
        asyncio.gather(*(reopen.server_name(redis, partition) for partition in asked.values())),
        asyncio.gather(*(redis.command("HMGET", key, "server", "state") for key in keys)),
        asyncio.gather(*(redis.command("HMGET", _key(account), *_FIELDS) for account in accounts)),
    )
    servers = dict(zip(asked, names, strict=True))
    for key, (server, state) in zip(keys, metas, strict=True):
        if state != b"open" or (server or b"").decode() != servers.get(redis.server_of(key)):
            raise Fenced
    return [_balance(*row) for row in rows]


async def of(redis: Caller, account: Document) -> Balance:
    (found,) = await read(redis, [account])
    return found


_FIELDS = ("credited", "spent", balances.FIELD, "grant")


def _balance(credited: bytes | None, spent: bytes | None, record: bytes | None, grant: bytes | None) -> Balance:
    has = balances.Balance.read(record)
    return Balance(int(credited or 0), int(spent or 0), has.held_nanos, has.available_nanos, has.live, int(grant or 0))


def _key(account: Document) -> str:
    return keyspace.account(account["partition"], account["_id"])
