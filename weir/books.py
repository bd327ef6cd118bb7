"""Both books of this machine's Weir, for commands that work on them; one line and exit status 2 if either is away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ledger.cold import ColdBook
from ledger.connect import connect
from ledger.link import Caller
from ledger.process import fail
from weir import stores
from weir.found import settings_of_this_machine
from weir.stores import StoreError

_DEADLINE_S = 30.0


@asynccontextmanager
async def opened(name: str) -> AsyncIterator[tuple[ColdBook, Caller]]:
    """The books for as long as the block; `name` is what the servers list the connections under."""
    settings = settings_of_this_machine()
    try:
        await stores.wait_for_redis(settings.redis_url, patience_s=3)
        await stores.wait_for_mongo(settings.mongo_url, patience_s=5)
    except StoreError as error:
        raise fail(str(error)) from None
    cold = ColdBook(settings.mongo_url)
    try:
        async with connect(settings.redis_url, deadline_s=_DEADLINE_S, name=name) as redis:
            yield cold, redis
    finally:
        await cold.close()
