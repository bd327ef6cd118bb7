"""From truth to force: what MongoDB says, put into Redis. Every step may be repeated; a later version always wins.

Raises Fenced or StoreUnavailable when Redis cannot take it now; the truth stays `dirty` and `complete_pending` (the
worker's loop) puts it in force later.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ledger import catalogue, hot, keyspace, plans
from ledger.cold import ColdBook, Document
from ledger.hot import Fenced
from ledger.link import Caller, StoreUnavailable
from ledger.policy import AccountPolicy, AccountRecord, KeyPolicy, KeyRecord, Limits
from ledger.price_documents import price_of
from ledger.vault import Vault

_OLD_CONFIG_S = 86_400
_AT_ONCE = 200
_AT_A_TIME = 10_000


async def account(redis: Caller, document: Document) -> bool:
    """Put an account's policy and credited total in force; False if the balance would be too large to count."""
    key = keyspace.account(document["partition"], document["_id"])
    await hot.publish(redis, document["partition"], key, document["version"], account_fields(document))
    return not document["grant_number"] or await grants(redis, document) != "RANGE"


def account_fields(document: Document) -> dict[str, str]:
    """An account's policy and status as Redis keeps them; '' where there is nothing."""
    return AccountRecord(
        status=document["status"],
        policy=msgspec.convert(
            {**document["policy"], "fit_to_balance": document.get("fit_to_balance", False)}, AccountPolicy
        ),
        limits=msgspec.convert(document["limits"], Limits),
        free_requests=int(document.get("free_requests", 0)),
    ).fields()


async def plan(cold: ColdBook, redis: Caller, document: Document) -> None:
    """Put a plan in force for every account that is on it."""
    await plans.spread(cold, document)
    behind = cold.accounts.find({"plan": document["_id"], "dirty": True})
    while some := await behind.to_list(_AT_ONCE):
        await asyncio.gather(*(_account_and_note(cold, redis, one) for one in some))
    await plans.is_clean(cold, document)


async def _account_and_note(cold: ColdBook, redis: Caller, document: Document) -> None:
    if await account(redis, document):  # else its policy is in force and its credit is not; the plan's part is done
        await account_is_clean(cold, document)


async def grants(redis: Caller, document: Document) -> str:
    """Put an account's credited total in force: OK, REPEAT, or RANGE if the balance would be too large to count."""
    return await hot.grant(
        redis,
        document["partition"],
        document["_id"],
        number=document["grant_number"],
        credited_nanos=document["credited_nanos"],
    )


async def api_key(redis: Caller, document: Document) -> None:
    """Put an API key's policy and status in force."""
    key = keyspace.api_key(document["partition"], document["_id"])
    await hot.publish(redis, document["partition"], key, document["version"], key_fields(document))


def key_fields(document: Document) -> dict[str, str]:
    """An API key's policy and status as Redis keeps them; '' where there is nothing."""
    return KeyRecord(
        digest=document["digest"],
        pepper=document["pepper"],
        account=document["account"],
        line=document["line"],
        status=document["status"],
        policy=msgspec.convert(document["policy"], KeyPolicy),
        limits=msgspec.convert(document["limits"], Limits),
        expires_us=document.get("expires_us"),
    ).fields()


async def account_is_clean(cold: ColdBook, document: Document) -> None:
    """Note that this version of an account is in force, unless it has changed again meanwhile."""
    same = {name: document[name] for name in ("_id", "version", "grant_number")}
    await cold.accounts.update_one(same, {"$set": {"dirty": False}})


async def key_is_clean(cold: ColdBook, document: Document) -> None:
    await cold.api_keys.update_one({"_id": document["_id"], "version": document["version"]}, {"$set": {"dirty": False}})


async def ensure_pepper(cold: ColdBook, vault: Vault) -> str:
    """The version of the pepper for new keys, made if there is none yet."""
    newest = await cold.peppers.find_one(sort=[("number", -1)])
    if newest is None:
        purpose = catalogue.pepper_purpose("1")
        sealed = vault.seal(os.urandom(32), purpose=purpose)
        await cold.peppers.update_one({"_id": "1"}, {"$setOnInsert": {"number": 1, "sealed": sealed}}, upsert=True)
        await cold.config_changed()
        return "1"
    return str(newest["_id"])


async def config(cold: ColdBook, redis: Caller) -> int:
    """Build the catalogue of the current config version, and put it in force on every partition; the version."""
    # One snapshot, or a model that was just added could be read beside upstreams that do not have its own yet.
    async with cold.client.start_session(snapshot=True) as session:
        single = await cold.singles.find_one({"_id": "config"}, session=session)
        assert single is not None
        version = int(single["version"])
        text = catalogue.encode(await build(cold, version, session))
    if await redis.command("GET", keyspace.config(version)) != text:  # a full server has it, and takes no SET
        await redis.command("SET", keyspace.config(version), text)
    await asyncio.gather(*(hot.publish(redis, p, keyspace.meta(p), version, {}) for p in keyspace.PARTITIONS))
    await cold.singles.update_one({"_id": "config"}, {"$max": {"published": version}})
    if version > 1:
        await redis.command("EXPIRE", keyspace.config(version - 1), _OLD_CONFIG_S)
    return version


async def build(cold: ColdBook, version: int, session: Any = None) -> catalogue.Catalogue:
    """The catalogue as MongoDB has it now, under this version."""
    upstreams = {
        d["_id"]: catalogue.Upstream(
            id=d["_id"],
            name=d["name"],
            provider=d["provider"],
            base_url=d["base_url"],
            credential=d["credential"],
            on_client_left=d["on_client_left"],
            weight=d["weight"],
            priority=d["priority"],
            region=d.get("region", ""),
            first_byte_timeout_s=d.get("first_byte_timeout_s"),
            limits=msgspec.convert(d.get("limits", {}), catalogue.UpstreamLimits),
        )
        async for d in cold.upstreams.find(session=session)
    }
    models = {
        d["_id"]: catalogue.Model(
            name=d["_id"],
            targets=tuple(catalogue.Target(t["upstream"], t["model"]) for t in d["targets"]),
            price=price_of(d, version=d["price_version"]),
            max_output_tokens=d["max_output_tokens"],
            max_input_tokens=d["max_input_tokens"],
            reasons=d.get("reasons", False),
            allow_stored=d.get("allow_stored", False),
            fallbacks=tuple(d.get("fallbacks", ())),
            queue_size=d.get("queue_size", 0),
            queue_timeout_s=d.get("queue_timeout_s", 0.0),
        )
        async for d in cold.models.find(session=session)
    }
    peppers = {d["_id"]: d["sealed"] async for d in cold.peppers.find(session=session)}
    return catalogue.Catalogue(version, models, upstreams, peppers)


async def complete_pending(cold: ColdBook, redis: Caller) -> int:
    """Put in force whatever could not be when it was written; how many records were."""
    done = 0
    async for document in cold.plans.find({"dirty": True}):
        await plan(cold, redis, document)
        done += 1
    done += await _each(
        await cold.accounts.find({"dirty": True}).limit(_AT_A_TIME).to_list(), _complete_account, cold, redis
    )
    done += await _each(
        await cold.api_keys.find({"dirty": True}).limit(_AT_A_TIME).to_list(), _complete_key, cold, redis
    )
    single = await cold.singles.find_one({"_id": "config"})
    if single is not None and single["published"] < single["version"]:
        await config(cold, redis)
        done += 1
    return done


async def _each(
    documents: list[Document],
    work: Callable[[ColdBook, Caller, Document], Awaitable[bool]],
    cold: ColdBook,
    redis: Caller,
) -> int:
    """Do it for all, several at once: after an outage there can be tens of thousands. How many were done."""
    done = 0
    for start in range(0, len(documents), _AT_ONCE):
        part = documents[start : start + _AT_ONCE]
        done += sum(await asyncio.gather(*(work(cold, redis, document) for document in part)))
    return done


async def _complete_account(cold: ColdBook, redis: Caller, found: Document) -> bool:
    document = await plans.current(cold, found)
    if not await account(redis, document):
        return False
    await account_is_clean(cold, document)
    return True


async def _complete_key(cold: ColdBook, redis: Caller, document: Document) -> bool:
    await api_key(redis, document)
    await key_is_clean(cold, document)
    return True


UNAVAILABLE = (Fenced, StoreUnavailable)
