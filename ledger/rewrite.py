"""Step 1 of reopening: on servers that mistreat a torn tail of their append-only file, write that file anew first.

A power cut can tear a script's MULTI ... EXEC. The server drops the torn half from memory but leaves it in the file and
appends behind it, and the next restart executes half a script (reliability.md 0.1). A finished rewrite leaves no tear.
"""

import asyncio
import contextlib
from collections.abc import Iterable

from redis.exceptions import ResponseError

from ledger import keyspace
from ledger.link import Caller

_MENDED_VALKEY = (9, 1, 2)
_LOOK_EVERY_S = 0.02


class RewriteFailed(OSError):
    """The server could not write its file anew; it is asked again, and nothing is opened before it has."""


async def finish(redis: Caller, partitions: Iterable[str]) -> int:
    """Finish a rewrite on each server of these partitions that needs one; how many did."""
    servers = {redis.server_of(keyspace.meta(partition)): partition for partition in partitions}
    return sum(await asyncio.gather(*(_finish(redis, keyspace.meta(p)) for p in servers.values())))


async def _finish(redis: Caller, key: str) -> bool:
    about, kept = await _info(redis, key, "server"), await _info(redis, key, "persistence")
    if kept.get("aof_enabled") != "1" or _mended(about):
        return False
    # Refused while one is under way: that one began after the file was loaded, so it is as good.
    with contextlib.suppress(ResponseError):
        await redis.command("BGREWRITEAOF", key=key)
    while True:
        kept = await _info(redis, key, "persistence")
        if kept["aof_rewrite_in_progress"] == kept["aof_rewrite_scheduled"] == "0":
            break
        await asyncio.sleep(_LOOK_EVERY_S)
    # Of a server that has not rewritten since it started, the status is "ok" as well; its count tells.
    if kept["aof_last_bgrewrite_status"] != "ok" or kept.get("aof_rewrites", "1") == "0":
        raise RewriteFailed(kept["aof_last_bgrewrite_status"])
    return True


def _mended(about: dict[str, str]) -> bool:
    version = about.get("valkey_version", "0").split(".")
    return about.get("server_name") == "valkey" and tuple(map(int, version[:3])) >= _MENDED_VALKEY


async def _info(redis: Caller, key: str, section: str) -> dict[str, str]:
    raw: bytes = await redis.command("INFO", section, key=key)
    lines = raw.decode(errors="replace").splitlines()
    return {name: value.strip() for name, found, value in (line.partition(":") for line in lines) if found}
