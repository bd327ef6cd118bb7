"""How long a rebuild of N accounts takes: `python -m tests.rebuild_scale 10000`, on servers of its own."""

# ruff: noqa: T201 - it prints what it measured

import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from bson.int64 import Int64

from ledger import reopen
from ledger.cold import ColdBook, now
from ledger.link import Link
from weir import rebuilding

_A_WRITE = 5_000


async def fill(cold: ColdBook, accounts: int) -> None:
    """Accounts of one key and one usage event each."""
    at = now()
    common = {"status": "active", "policy": {}, "version": 1, "dirty": False}
    for start in range(0, accounts, _A_WRITE):
        made, keys, usage = [], [], []
        for n in range(start, min(start + _A_WRITE, accounts)):
            place = {"account": f"acct_{n:09d}", "partition": f"{n % 256:02x}"}
            money = {"grant_number": 1, "credited_nanos": Int64(10**10), "limits": {}, "name": "A", "plan": None}
            made.append({"_id": place["account"], "partition": place["partition"], **common, **money})
            secret = {"digest": secrets.token_hex(32), "pepper": "1", "line": f"k{n:09d}", "limits": {"concurrency": 5}}
            keys.append({"_id": f"k{n:09d}", **place, **common, **secret})
            event = {"request_id": f"r{n}", "end": "settled", "at": at, "day": at.strftime("%Y-%m-%d"), "model": "m"}
            numbers = {"epoch": 1, "seq": n // 256 + 1, "charge_nanos": Int64(1234), "shortfall_nanos": Int64(0)}
            usage.append({"_id": f"r{n}", **place, **event, **numbers, "api_key": f"k{n:09d}"})
        fast = cold.client.get_database(cold.db.name)  # the load is not what is measured
        await asyncio.gather(
            *(
                fast[name].insert_many(d, ordered=False)
                for name, d in (("accounts", made), ("api_keys", keys), ("usage", usage))
            )
        )


async def main(accounts: int, redis_url: str, mongo_url: str) -> None:
    cold = ColdBook(mongo_url)
    await cold.prepare()
    await fill(cold, accounts)
    async with Link(redis_url, deadline_s=30) as redis:
        print(f"{len(await reopen.closed_partitions(redis))} partitions are closed")
        print(rebuilding.table(await rebuilding.under_lease(cold, redis, progress=lambda _done, _of: None)))
    await cold.close()


if __name__ == "__main__":
    from tests.conftest import mongod, valkey

    with (
        tempfile.TemporaryDirectory() as folder,
        mongod(Path(folder) / "m") as mongo,
        valkey(Path(folder) / "v") as redis_server,
    ):
        asyncio.run(main(int(sys.argv[1]), redis_server.url, mongo.url))
