"""Putting a change in force, and noting that it is. A route that returns has changed what the gateway admits by.

The order is the guarantee: truth (MongoDB, `dirty`), then force (Redis), then `dirty` off. Whatever stops half-way is
finished by the ledger worker's `complete_pending`, or by the same request sent again.
"""

from admin_api.problems import REDIS_AWAY, pending
from admin_api.stores import Stores
from ledger import plans, publish
from ledger.cold import Document


async def account(stores: Stores, document: Document) -> Document:
    """Policy, status and credited total of this version, or of the later one that is returned.

    Problem `pending` if Redis cannot take them now.
    """
    document = await plans.current(stores.cold, document)
    if not await _account(stores, document):
        raise pending(document["_id"])
    return document


async def account_if_able(stores: Stores, document: Document) -> bool:
    """The same; whether it is in force. The policy goes along with a grant, or `dirty` off would forget it."""
    return await _account(stores, await plans.current(stores.cold, document))


async def _account(stores: Stores, document: Document) -> bool:
    try:
        if not await publish.account(stores.redis, document):
            return False
    except REDIS_AWAY:
        return False
    await publish.account_is_clean(stores.cold, document)
    return True


async def plan(stores: Stores, document: Document) -> None:
    """A plan, for every account that is on it; problem `pending` if Redis cannot take all of them now."""
    try:
        await publish.plan(stores.cold, stores.redis, document)
    except REDIS_AWAY:
        raise pending(document["_id"]) from None


async def api_keys(stores: Stores, *documents: Document, more: str = "") -> None:
    """Keys, in the order given; problem `pending`, about the first, if Redis cannot take them now."""
    for document in documents:
        try:
            await publish.api_key(stores.redis, document)
        except REDIS_AWAY:
            raise pending(documents[0]["_id"], more) from None
        await publish.key_is_clean(stores.cold, document)


async def config(stores: Stores, identity: str, more: str = "") -> None:
    """Models, prices, upstreams and peppers, on every partition; problem `pending` if Redis cannot take them now."""
    try:
        await publish.config(stores.cold, stores.redis)
    except REDIS_AWAY:
        raise pending(identity, more) from None


async def pepper(stores: Stores, identity: str, more: str = "") -> None:
    """The config if it is not in force yet: a gateway knows a new key only by the pepper that is in it."""
    single = await stores.cold.singles.find_one({"_id": "config"})
    if single is not None and single["published"] >= single["version"]:
        return
    await config(stores, identity, more)
