"""MongoDB's records against each other: grants and the credited totals, statements and the usage that is still there."""

from datetime import timedelta
from typing import Any

import msgspec

from ledger import statements as stating
from ledger.cold import ColdBook, Document, now

_AT_ONCE = 1_000


class Difference(msgspec.Struct, frozen=True):
    """One thing that does not add up: of which account, what, both sides (nano-USD or a count), and where it was read.

    `redis` is what was read: in Redis unless `where` says otherwise.
    """

    account: str
    what: str
    redis: int
    expected: int
    where: str = "Redis"


class Checked(msgspec.Struct):
    """How many statements were read, how many partitions' days were added up again, and what was wrong with them."""

    statements: int
    days: int
    differences: list[Difference]


async def grants(cold: ColdBook, accounts: list[Document]) -> list[Difference]:
    """Accounts whose credited total is not the sum of their grants."""
    found = []
    for start in range(0, len(accounts), _AT_ONCE):
        some = accounts[start : start + _AT_ONCE]
        pipeline: list[dict[str, Any]] = [
            {"$match": {"account": {"$in": [document["_id"] for document in some]}}},
            {"$group": {"_id": "$account", "granted": {"$sum": "$amount_nanos"}}},
        ]
        granted = {row["_id"]: int(row["granted"]) async for row in await cold.grants.aggregate(pipeline)}
        # Read again: a grant may have come since the accounts were, and it changes both in one transaction.
        ids = [d["_id"] for d in some if granted.get(d["_id"], 0) != d["credited_nanos"]]
        for account in ids:
            credited, total = await _granted(cold, account)
            if credited != total:
                found.append(Difference(account, "credited", credited, total, "MongoDB"))
    return found


async def _granted(cold: ColdBook, account: str) -> tuple[int, int]:
    """The credited total of one account and the sum of its grants, of one instant."""
    async with cold.client.start_session(snapshot=True) as session:
        document = await cold.accounts.find_one({"_id": account}, session=session)
        amounts = [int(g["amount_nanos"]) async for g in cold.grants.find({"account": account}, session=session)]
    return int((document or {}).get("credited_nanos", 0)), sum(amounts)


async def statements(cold: ColdBook) -> Checked:
    """Each statement's own digest and its link to the one before; and where usage is still there, the day added up again."""
    checked = Checked(0, 0, [])
    last: dict[str, Any] | None = None
    async for statement in cold.statements.find().sort([("account", 1), ("day", 1)]):
        checked.statements += 1
        same = last is not None and last["account"] == statement["account"]
        if stating.digest(statement) != statement["digest"]:
            checked.differences.append(Difference(statement["_id"], "statement was changed", 1, 0, "MongoDB"))
        elif same and last is not None and statement["previous"] != last["digest"]:
            checked.differences.append(Difference(statement["_id"], "statement before it is another", 1, 0, "MongoDB"))
        last = statement
    async for book in cold.books.find({"_id": {"$regex": "^partition:"}, "sealed_day": {"$exists": True}}):
        sealed = {"partition": book["partition"], "day": {"$lte": book["sealed_day"]}}
        for day in sorted(await cold.statements.distinct("day", sealed)):
            of_day = {"partition": book["partition"], "day": day}
            first = await cold.usage.find_one({**of_day, "purge_at": {"$ne": None}}, sort=[("purge_at", 1)])
            if first is not None and first["purge_at"] > now() + timedelta(hours=1):  # else it is just being purged
                checked.days += 1
                checked.differences += await _recompute(cold, book["partition"], day)
    return checked


async def _recompute(cold: ColdBook, partition: str, day: str) -> list[Difference]:
    found, seen = [], 0
    async for tally in stating.tallies(cold, partition, day):
        kept = await cold.statements.find_one({"_id": f"{tally.account}:{day}"})
        seen += 1
        if kept is None:
            found.append(Difference(f"{tally.account}:{day}", "statements", 0, 1, "MongoDB"))
        elif tally.statement(partition, day, kept["previous"])["digest"] != kept["digest"]:
            amounts = kept["charge_nanos"], tally.total.charge
            found.append(Difference(f"{tally.account}:{day}", "charges of the statement", *amounts, "MongoDB"))
    stated = await cold.statements.count_documents({"partition": partition, "day": day})
    if stated > seen:
        found.append(Difference(f"{partition}:{day}", "statements", stated, seen, "MongoDB"))
    return found
