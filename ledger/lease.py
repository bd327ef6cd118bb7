"""Leadership: a lease in MongoDB with a fencing token, by MongoDB's own clock (client clocks take no part)."""

import contextlib
import os
import socket
from datetime import datetime

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from ledger.cold import ColdBook

LEASE_MS = 10_000
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - BSON dates are UTC and read back naive


class Lease:
    """Held by one worker at a time; `term` grows with every change of holder and fences what an old one still sends."""

    def __init__(self, cold: ColdBook, name: str = "ledger") -> None:
        self._leases = cold.leases
        self._name = name
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        self.term = 0

    async def hold(self) -> bool:
        """Take or renew the lease; whether we hold it now."""
        if self.term == 0:
            with contextlib.suppress(DuplicateKeyError):
                await self._leases.insert_one({"_id": self._name, "holder": "", "term": 0, "until": EPOCH})
        mine = {"$eq": ["$holder", self._holder]}
        free = {"$lt": ["$until", "$$NOW"]}
        taken = {
            "term": {"$cond": [mine, "$term", {"$add": ["$term", 1]}]},
            "holder": self._holder,
            "until": {"$add": ["$$NOW", LEASE_MS]},
        }
        found = await self._leases.find_one_and_update(
            {"_id": self._name, "$expr": {"$or": [mine, free]}},
            [{"$set": taken}],
            return_document=ReturnDocument.AFTER,
        )
        if found is None:  # somebody else's is running
            return False
        self.term = int(found["term"])
        return True

    async def release(self) -> None:
        """Let the next worker take over at once."""
        await self._leases.update_one(
            {"_id": self._name, "holder": self._holder}, [{"$set": {"until": "$$NOW", "holder": ""}}]
        )
