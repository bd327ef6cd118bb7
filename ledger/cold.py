"""The cold book: MongoDB, the truth that Redis is refilled from. Every write is majority and journalled.

Collections and their rules are in design.md section 7. `dirty` on an account, a key or the config says that Redis may
be behind: it is set in the write that changes the truth and unset once the change is in force (`publish`).
"""

import contextlib
import secrets
from datetime import UTC, datetime
from typing import Any

from bson.codec_options import CodecOptions
from pymongo import ASCENDING, DESCENDING, AsyncMongoClient, IndexModel, ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

Document = dict[str, Any]
Collection = AsyncCollection[Document]

_INDEXES: dict[str, list[IndexModel]] = {
    "accounts": [
        IndexModel([("dirty", ASCENDING)], partialFilterExpression={"dirty": True}, name="dirty"),
        IndexModel([("partition", ASCENDING)], name="partition"),
        IndexModel(
            [("plan", ASCENDING), ("plan_version", ASCENDING)],
            partialFilterExpression={"plan": {"$type": "string"}},
            name="plan",
        ),
    ],
    "api_keys": [
        IndexModel([("dirty", ASCENDING)], partialFilterExpression={"dirty": True}, name="dirty"),
        IndexModel([("account", ASCENDING), ("_id", ASCENDING)], name="account"),
        IndexModel([("partition", ASCENDING)], name="partition"),
    ],
    "upstreams": [IndexModel([("name", ASCENDING)], unique=True, name="name")],
    "idempotency": [IndexModel([("created_at", ASCENDING)], name="created_at")],
    "grants": [IndexModel([("account", ASCENDING), ("number", ASCENDING)], unique=True, name="number")],
    "usage": [
        IndexModel([("account", ASCENDING), ("at", DESCENDING), ("_id", DESCENDING)], name="account_at"),
        IndexModel([("partition", ASCENDING), ("epoch", ASCENDING), ("seq", ASCENDING)], name="sequence"),
        IndexModel([(name, ASCENDING) for name in ("partition", "day", "account", "epoch", "seq")], name="day"),
        # A document without the field never expires, and it is absent until the day's statement is written; what is not in
        # an index costs nothing to insert.
        IndexModel(
            [("purge_at", ASCENDING)],
            expireAfterSeconds=0,
            partialFilterExpression={"purge_at": {"$exists": True}},
            name="purge_at",
        ),
    ],
    "debits": [
        IndexModel([("account", ASCENDING), ("day", ASCENDING)], name="account_day"),
        IndexModel([("partition", ASCENDING), ("epoch", ASCENDING), ("seq", ASCENDING)], name="sequence"),
    ],
    "debit_requests": [
        IndexModel([("account", ASCENDING), ("number", ASCENDING)], unique=True, name="number"),
        IndexModel([("booked", ASCENDING)], partialFilterExpression={"booked": False}, name="open"),
    ],
    "reposted": [IndexModel([("partition", ASCENDING), ("epoch", ASCENDING), ("seq", ASCENDING)], name="sequence")],
    "statements": [
        IndexModel([("account", ASCENDING), ("day", ASCENDING)], name="account_day"),
        IndexModel([("partition", ASCENDING), ("day", ASCENDING)], name="partition_day"),
    ],
    "dead_events": [IndexModel([("partition", ASCENDING), ("epoch", ASCENDING), ("seq", ASCENDING)], name="sequence")],
    "epochs": [IndexModel([("partition", ASCENDING), ("epoch", ASCENDING)], name="epoch")],
    "books": [IndexModel([("partition", ASCENDING)], name="partition")],
}
DUPLICATE_KEY = 11000
_NO_SUCH_INDEX = 27
# Of usage, as earlier versions made them: each event paid for them.
_RETIRED = ("request", "purge_at")
_SILENCE_MS = 60_000  # longer than any answer of ours takes to begin
FINANCIAL = (
    "grants", "debits", "debit_requests", "reposted", "statements", "epochs", "books", "audit", "dead_events",
)  # fmt: skip


class ColdBookError(Exception):
    """MongoDB cannot be used as it is; the message is one line that says what to do."""


class ColdBook:
    """The database of one installation, by the collections' names."""

    def __init__(self, url: str, *, timeout_ms: int = 5_000) -> None:
        asked = parse_uri(url)
        name = asked["database"] or "weir"
        # A connection that falls silent is given up; else the loop that waits on it would wait for ever.
        silence: dict[str, Any] = {} if "socketTimeoutMS" in asked["options"] else {"socketTimeoutMS": _SILENCE_MS}
        self.client: AsyncMongoClient[Document] = AsyncMongoClient(
            url, tz_aware=False, serverSelectionTimeoutMS=timeout_ms, appname="weir", **silence
        )
        self.db: AsyncDatabase[Document] = self.client.get_database(
            name,
            codec_options=CodecOptions(tz_aware=False),
            write_concern=WriteConcern("majority", j=True, wtimeout=10_000),
            read_concern=ReadConcern("majority"),
        )
        self.accounts: Collection = self.db["accounts"]
        self.api_keys: Collection = self.db["api_keys"]
        self.upstreams: Collection = self.db["upstreams"]
        self.models: Collection = self.db["models"]
        self.prices: Collection = self.db["prices"]
        self.peppers: Collection = self.db["peppers"]
        self.grants: Collection = self.db["grants"]
        self.idempotency: Collection = self.db["idempotency"]
        self.usage: Collection = self.db["usage"]
        self.debits: Collection = self.db["debits"]
        self.debit_requests: Collection = self.db["debit_requests"]
        self.reposted: Collection = self.db["reposted"]
        self.statements: Collection = self.db["statements"]
        self.plans: Collection = self.db["plans"]
        self.epochs: Collection = self.db["epochs"]
        self.books: Collection = self.db["books"]
        self.dead_events: Collection = self.db["dead_events"]
        self.leases: Collection = self.db["leases"]
        self.singles: Collection = self.db["singles"]

    async def close(self) -> None:
        await self.client.close()

    async def prepare(self) -> None:
        """Make indexes and the instance id; ColdBookError if the server is no replica set or an index is not ours."""
        hello = await self.client.admin.command("hello")
        if not hello.get("setName"):
            raise ColdBookError(
                "MongoDB is not a replica set (one member will do): start it with --replSet and initiate it"
            )
        await self.check_indexes()  # before ours are made: one that differs from ours is to be named, not collided with
        await self._retire_indexes()
        for collection, indexes in _INDEXES.items():
            await self.db[collection].create_indexes(indexes)
        await self.ensure_single("instance", {"id": secrets.token_hex(8)})
        await self.ensure_single("config", {"version": 0, "published": 0})

    async def _retire_indexes(self) -> None:
        async for index in await self.usage.list_indexes():
            if index["name"] in _RETIRED and "partialFilterExpression" not in index:
                try:
                    await self.usage.drop_index(index["name"])
                except OperationFailure as error:
                    if error.code != _NO_SUCH_INDEX:  # another process was first
                        raise

    async def check_indexes(self) -> None:
        """Refuse a TTL index where money is kept, and any but ours on usage: either would delete what must stay."""
        for collection in await self.db.list_collection_names():
            async for index in await self.db[collection].list_indexes():
                if "expireAfterSeconds" not in index:
                    continue
                ours = collection == "usage" and index["key"] == {"purge_at": 1} and index["expireAfterSeconds"] == 0
                if collection in FINANCIAL or (collection == "usage" and not ours):
                    raise ColdBookError(f"index {index['name']} would delete {collection} by time; drop it in MongoDB")

    async def ensure_single(self, name: str, initial: Document) -> Document:
        """The one document of that name, made if it is not there."""
        with contextlib.suppress(DuplicateKeyError):
            await self.singles.insert_one({"_id": name, **initial})
        found = await self.singles.find_one({"_id": name})
        assert found is not None
        return found

    async def next_number(self, name: str, session: Any = None) -> int:
        """The next of a gap-free count, such as price versions."""
        found = await self.singles.find_one_and_update(
            {"_id": name},
            {"$inc": {"number": 1}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        assert found is not None
        return int(found["number"])

    async def config_changed(self, session: Any = None) -> int:
        """Number a change of models, prices, upstreams or peppers; the new version, not yet in force."""
        found = await self.singles.find_one_and_update(
            {"_id": "config"}, {"$inc": {"version": 1}}, return_document=ReturnDocument.AFTER, session=session
        )
        assert found is not None
        return int(found["version"])


def now() -> datetime:
    """UTC, to the millisecond, as BSON keeps it."""
    at = datetime.now(UTC).replace(tzinfo=None)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
