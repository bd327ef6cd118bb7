"""What every route works with: the settings, both books and the vault, and how a transaction is run."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import pymongo
from fastapi import Depends, Request
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.read_concern import ReadConcern

from ledger.cold import ColdBook
from ledger.link import Caller
from ledger.settings import Settings
from ledger.vault import Vault

Session = AsyncClientSession
T = TypeVar("T")

TRANSACTION_S = 15.0  # the driver would try for two minutes


@dataclass(frozen=True, slots=True)
class Stores:
    """The app's state."""

    settings: Settings
    cold: ColdBook
    redis: Caller
    vault: Vault


async def _stores(request: Request) -> Stores:
    stores: Stores = request.app.state.stores
    return stores


StoresDep = Annotated[Stores, Depends(_stores)]


async def in_transaction(cold: ColdBook, work: Callable[[Session], Awaitable[T]]) -> T:
    """Run `work` in one transaction, again from its start when MongoDB says that it met another one.

    What it returns is on a majority's disks. Whatever `work` raises, nothing was written; when MongoDB goes away for
    longer than `TRANSACTION_S`, that is not known (ConnectionFailure or ExecutionTimeout).
    """
    with pymongo.timeout(TRANSACTION_S):
        async with cold.client.start_session() as session:
            return await session.with_transaction(
                work, read_concern=ReadConcern("snapshot"), write_concern=cold.db.write_concern
            )
