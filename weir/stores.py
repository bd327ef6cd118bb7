"""Waiting for the two stores, bundled or the operator's own, by asking them."""

import asyncio
import re
import time

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError
from redis.exceptions import ResponseError

from ledger.connect import connect
from ledger.link import StoreUnavailable
from weir.bundled import Mongod

_PATIENCE_S = 20.0
_NOT_INITIATED, _ALREADY_INITIATED = 94, 23


class StoreError(Exception):
    """A store cannot be used; one line that says what to do."""


def shown(url: str) -> str:
    """A URL without its password."""
    return re.sub(r"//[^@/]*@", "//***@", url)


async def wait_for_redis(url: str, *, patience_s: float = _PATIENCE_S) -> None:
    """Until Redis answers and has loaded its data."""
    end = time.monotonic() + patience_s
    async with connect(url, deadline_s=1, name="weir-up") as asking:
        while True:
            try:
                await asking.command("PING")
            except (StoreUnavailable, ResponseError) as error:
                if time.monotonic() > end:
                    message = f"Redis at {shown(url)} does not answer ({error}); check WEIR_REDIS_URL"
                    raise StoreError(message) from None
                await asyncio.sleep(0.02)
            else:
                return


async def wait_for_mongo(url: str, *, patience_s: float = _PATIENCE_S) -> None:
    """Until MongoDB has a primary."""
    asking: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(
        url, serverSelectionTimeoutMS=round(patience_s * 1000)
    )
    try:
        await asking.admin.command("ping")
    except PyMongoError as error:
        message = f"MongoDB at {shown(url)} does not answer ({type(error).__name__}); check WEIR_MONGO_URL"
        raise StoreError(message) from None
    finally:
        await asking.close()


async def make_primary(server: Mongod, *, patience_s: float = _PATIENCE_S) -> None:
    """Make the bundled mongod a replica set of one, at the port that it has now."""
    asking: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(
        server.host, directConnection=True, serverSelectionTimeoutMS=round(patience_s * 1000)
    )
    member = {"_id": 0, "host": server.host}
    try:
        try:
            current = (await asking.admin.command("replSetGetConfig"))["config"]
            if current["members"][0]["host"] != server.host:
                # On another port it would wait for itself for ever (reliability.md 8).
                moved = {**current, "members": [member], "version": current["version"] + 1}
                await asking.admin.command("replSetReconfig", moved, force=True)
        except OperationFailure as error:
            if error.code != _NOT_INITIATED:
                raise
            await asking.admin.command("replSetInitiate", {"_id": "weir", "members": [member]})
        end = time.monotonic() + patience_s
        while not (await asking.admin.command("hello")).get("isWritablePrimary"):
            if time.monotonic() > end:
                raise StoreError(f"the bundled mongod on {server.host} did not become primary; see its log")
            await asyncio.sleep(0.02)
    except PyMongoError as error:
        raise StoreError(f"the bundled mongod on {server.host} does not answer ({type(error).__name__})") from None
    finally:
        await asking.close()
