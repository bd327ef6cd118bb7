"""Start is refused while an index would delete money by time: each way in which one can."""

import pytest

from ledger.cold import FINANCIAL, ColdBook, ColdBookError, now


@pytest.mark.parametrize("collection", FINANCIAL)
async def test_a_ttl_index_where_money_is_kept(cold: ColdBook, collection: str) -> None:
    await cold.db[collection].create_index("created_at", expireAfterSeconds=3600, name="mine")
    with pytest.raises(ColdBookError, match=f"index mine would delete {collection} by time"):
        await cold.prepare()
    await cold.db[collection].drop_index("mine")
    await cold.prepare()


async def test_a_ttl_on_another_field_of_usage(cold: ColdBook) -> None:
    await cold.usage.create_index("at", expireAfterSeconds=7_776_000, name="mine")
    with pytest.raises(ColdBookError, match="index mine would delete usage by time"):
        await cold.prepare()


@pytest.mark.parametrize("seconds", [3600, float("nan")])
async def test_another_expiry_of_ours(cold: ColdBook, seconds: float) -> None:
    """As after a collMod by hand, or an index that somebody made before the first start."""
    await cold.usage.drop_index("purge_at")
    await cold.usage.create_index("purge_at", expireAfterSeconds=seconds, name="purge_at")
    with pytest.raises(ColdBookError, match="index purge_at would delete usage by time"):
        await cold.prepare()


async def test_indexes_of_earlier_versions_are_replaced(cold: ColdBook) -> None:
    await cold.usage.drop_index("purge_at")
    await cold.usage.create_index("purge_at", expireAfterSeconds=0, name="purge_at")
    await cold.usage.create_index("request_id", name="request")
    await cold.prepare()
    await cold.prepare()
    indexes = {index["name"]: index async for index in await cold.usage.list_indexes()}
    assert "request" not in indexes
    assert indexes["purge_at"]["partialFilterExpression"] == {"purge_at": {"$exists": True}}


async def test_a_plain_index_that_was_made_a_ttl_index(cold: ColdBook) -> None:
    await cold.usage.create_index("day", name="mine")
    await cold.db.command("collMod", "usage", index={"name": "mine", "expireAfterSeconds": 1})
    with pytest.raises(ColdBookError, match="index mine"):
        await cold.prepare()


async def test_ttl_indexes_elsewhere_are_nobodys_business(cold: ColdBook) -> None:
    await cold.db["sessions"].create_index("expires_at", expireAfterSeconds=0)
    await cold.prepare()


async def test_a_document_without_an_end_never_expires(cold: ColdBook) -> None:
    """What the purge relies on, asked of the real server: the monitor passes, and takes only what has an end."""
    past = now().replace(year=2020)
    await cold.usage.insert_many(
        [{"_id": "kept", "day": "2020-01-01"}, {"_id": "purged", "purge_at": past}, {"_id": "text", "purge_at": "2020"}]
    )
    passes = (await cold.client.admin.command("serverStatus"))["metrics"]["ttl"]["passes"]
    while (await cold.client.admin.command("serverStatus"))["metrics"]["ttl"]["passes"] < passes + 2:
        pass
    assert [d["_id"] async for d in cold.usage.find().sort("_id")] == ["kept", "text"]
