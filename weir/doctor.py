"""`weir doctor`: what the settings and servers at hand can promise, a line each; and re-sealing after a key rotation."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from pymongo.errors import PyMongoError
from redis.exceptions import ResponseError

from ledger import catalogue, compiled, keyspace, publish, scripts
from ledger.cold import ColdBook, ColdBookError
from ledger.connect import connect
from ledger.link import Caller, StoreUnavailable
from ledger.settings import Settings
from ledger.vault import Vault, VaultError

_CLOCKS_APART_S = 2.0
_NEEDED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


class Finding(NamedTuple):
    """One thing looked at: what, whether it is as it should be, and what was seen or has to be done."""

    what: str
    good: bool
    said: str


async def examine(settings: Settings, *, rewrap: bool) -> list[Finding]:
    """Look at everything; no finding stops the others."""
    found = [Finding("settings", good=True, said="complete"), _request_path()]
    found += _spill(settings.spill_dir)
    cold = ColdBook(settings.mongo_url, timeout_ms=3_000)
    assert settings.master_key is not None
    vault = Vault(settings.master_key, settings.master_key_previous)
    try:
        async with connect(settings.redis_url, deadline_s=3, name="weir-doctor") as redis:
            found += [finding async for finding in _redis(redis, settings)]
            found += [finding async for finding in _mongo(cold)]
            found += [finding async for finding in _secrets(cold, redis, vault, rewrap=rewrap)]
    finally:
        await cold.close()
    return found


def _request_path() -> Finding:
    said = f"compiled, {compiled.found} modules" if compiled.found else "interpreted; make compiled makes it lighter"
    return Finding("request path", good=True, said=said)


def _spill(folder: Path) -> list[Finding]:
    what = "spill folder"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / f"{os.getpid()}.probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return [Finding(what, good=False, said=f"{folder} cannot be written ({error.strerror}); set WEIR_SPILL_DIR")]
    contained = Path("/.dockerenv").exists() or "KUBERNETES_SERVICE_HOST" in os.environ
    if contained and folder.stat().st_dev == Path("/").stat().st_dev:
        said = f"{folder} is inside the container and goes with it; put WEIR_SPILL_DIR on a volume"
        return [Finding(what, good=False, said=said)]
    return [Finding(what, good=True, said=str(folder))]


async def _redis(redis: Caller, settings: Settings) -> AsyncIterator[Finding]:
    try:
        await redis.command("PING")
    except (StoreUnavailable, ResponseError) as error:
        yield Finding("Redis", good=False, said=f"does not answer ({error}); check WEIR_REDIS_URL")
        return
    shards: dict[object, str] = {}
    for partition in keyspace.PARTITIONS:
        shards.setdefault(redis.server_of(keyspace.meta(partition)), partition)
    for partition in shards.values():
        async for finding in _shard(redis, partition, settings.replicas):
            yield finding
    states = [await redis.command("HGET", keyspace.meta(p), "state") for p in keyspace.PARTITIONS]
    is_open = sum(state == b"open" for state in states)
    said = f"{is_open} of {len(states)} open" + ("" if is_open == len(states) else "; is a ledger worker running?")
    yield Finding("partitions", good=is_open == len(states), said=said)


async def _shard(redis: Caller, partition: str, replicas: int) -> AsyncIterator[Finding]:
    """One server: what it is, whether an acknowledged write is on disk, and who follows it."""
    key = keyspace.meta(partition)
    info = _fields(await redis.command("INFO", "server", key=key))
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "?")
    yield Finding("server", good=True, said=f"{name} {version}, partition {partition} and its neighbours")
    for option, wanted in _NEEDED.items():
        try:
            reply = await redis.command("CONFIG", "GET", option, key=key)
            value = (reply[1] if isinstance(reply, list) else next(iter(reply.values()))).decode()
        except ResponseError:
            yield Finding(option, good=False, said=f"cannot be read here; make sure that it is {wanted}")
            continue
        why = "" if value == wanted else f"; it must be {wanted}: {_WHY[option]}"
        yield Finding(option, good=value == wanted, said=value + why)
    if name == "Redis":
        said = (
            "a torn AOF tail can be replayed in half; reopening finishes a rewrite first. Valkey 9.1 does not need it"
        )
        yield Finding("AOF", good=True, said=said)
    following = int(_fields(await redis.command("INFO", "replication", key=key)).get("connected_slaves", "0"))
    enough = following >= replicas
    said = f"{following} connected, WEIR_REPLICAS is {replicas}"
    if following and not replicas:
        enough, said = False, said + "; set it to how many must have a settle before it is forgotten"
    yield Finding("replicas", good=enough, said=said)
    try:
        for script in scripts.SCRIPTS:
            await redis.command("SCRIPT", "LOAD", script.text, key=key)
        yield Finding("scripts", good=True, said=f"{len(scripts.SCRIPTS)} load")
    except ResponseError as error:
        yield Finding("scripts", good=False, said=str(error))
    seconds, micros = await redis.command("TIME", key=key)
    yield _clock("Redis", int(seconds) + int(micros) / 1e6)


_WHY = {
    "appendonly": "balances live in memory only",
    "appendfsync": "an acknowledged charge can be lost in a power cut, and WAITAOF does not always wait",
    "maxmemory-policy": "a full server would throw balances away",
}


def _clock(whose: str, seconds: float) -> Finding:
    apart = abs(seconds - time.time())
    return Finding(f"{whose}'s clock", good=apart < _CLOCKS_APART_S, said=f"{apart:.2f} s from this machine's")


async def _mongo(cold: ColdBook) -> AsyncIterator[Finding]:
    try:
        hello: dict[str, Any] = await cold.client.admin.command("hello")
        version = (await cold.client.server_info())["version"]
    except PyMongoError as error:
        yield Finding("MongoDB", good=False, said=f"does not answer ({type(error).__name__}); check WEIR_MONGO_URL")
        return
    yield Finding(
        "MongoDB", good=bool(hello.get("setName")), said=f"{version}, replica set {hello.get('setName', 'none')}"
    )
    yield _clock("MongoDB", hello["localTime"].timestamp() - time.timezone)
    try:
        await cold.check_indexes()
        yield Finding("indexes", good=True, said="nothing financial is deleted by time")
    except ColdBookError as error:
        yield Finding("indexes", good=False, said=str(error))
    dead = await cold.dead_events.estimated_document_count()
    yield Finding(
        "dead events", good=not dead, said=f"{dead} parked" + ("; look at the collection dead_events" if dead else "")
    )


async def _secrets(cold: ColdBook, redis: Caller, vault: Vault, *, rewrap: bool) -> AsyncIterator[Finding]:
    """Every sealed value opens; those under the previous master key are sealed anew if asked for."""
    stale = broken = 0
    try:
        for collection, field, purpose in (
            (cold.upstreams, "credential", catalogue.credential_purpose),
            (cold.peppers, "sealed", catalogue.pepper_purpose),
        ):
            async for document in collection.find():
                try:
                    secret = vault.open(document[field], purpose=purpose(document["_id"]))
                except VaultError:
                    broken += 1
                    continue
                if vault.is_current(document[field]):
                    continue
                stale += 1
                if rewrap:
                    sealed = vault.seal(secret, purpose=purpose(document["_id"]))
                    same = {"_id": document["_id"], field: document[field]}
                    await collection.update_one(same, {"$set": {field: sealed}})
        if stale and rewrap:
            await cold.config_changed()
            await publish.config(cold, redis)
    except PyMongoError as error:
        yield Finding("secrets", good=False, said=f"cannot be read ({type(error).__name__})")
        return
    if broken:
        said = f"{broken} do not open: WEIR_MASTER_KEY is another one; set the old as WEIR_MASTER_KEY_PREVIOUS"
        yield Finding("secrets", good=False, said=said)
    elif stale and not rewrap:
        yield Finding("secrets", good=False, said=f"{stale} under the previous master key: weir doctor --rewrap")
    else:
        yield Finding("secrets", good=True, said=f"{stale} sealed anew" if stale else "all open with the master key")


def _fields(info: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in info.decode().splitlines() if ":" in line)
    return {name: value.strip() for name, _, value in pairs}


def table(found: list[Finding]) -> str:
    """The findings as lines a person can read."""
    width = max(len(finding.what) for finding in found)
    return "\n".join(f"{'ok  ' if f.good else 'LOOK'}  {f.what:<{width}}  {f.said}" for f in found)
