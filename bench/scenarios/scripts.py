"""What admit and settle cost a Redis that does nothing else: its own statistics of them, and its CPU all in all."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from msgspec.structs import replace

from bench.arena import Arena
from bench.contestants import weir
from bench.machine import CannotRunError, cpu_s, free_port, pin, server
from ledger import facts, hot, keyspace, request_id, takeover
from ledger.facts import Facts
from ledger.hot import Admitted, Ended, Offer, Place, Versions
from ledger.link import Link

_PLACE = Place("5a", "acct_bench", "0123456789abcdef", "line_bench")
_VERSIONS = Versions(1, 1, 1)
_LIMITS = {"rpm": "1000000000", "tpm": "1000000000", "conc": "10000"}
_AMOUNTS = [262_750_000, 131_678_000, 66_142_000, 33_374_000]
_WARM_UP = 200
_DURABLE = ("--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always", "--save", "")
_FACTS = Facts(
    account=_PLACE.account,
    api_key=_PLACE.key,
    model="gpt-4.1",
    dialect="openai",
    endpoint="chat.completions",
    price_version=1,
    streamed=False,
    bytes_in=300,
)
_ENDED = replace(
    _FACTS,
    admitted_us=1_700_000_000_000_000,
    outcome="complete",
    served_model="gpt-4.1-2025-04-14",
    provider="openai",
    upstream="plain",
    status=200,
    usage={"input_uncached": 19, "output": 10},
    quote_nanos=_AMOUNTS[0],
    latency_ms=12,
    ttft_ms=11,
    bytes_out=670,
)


class Scripts(NamedTuple):
    """So many requests' scripts, so many at once, on a server of their own that has the measured core."""

    name: str
    requests: int
    at_once: int
    rounds: int

    def who(self, arena: Arena) -> list[str]:
        return [weir.NAME] if weir.NAME in arena.contestants else []

    def measure(self, arena: Arena, name: str) -> dict[str, float]:
        arena.stack.wait_until_drained()
        del name
        with TemporaryDirectory() as folder:
            port = free_port()
            like = arena.stack.redis_server()[0]
            command = [like.exe(), "--port", str(port), "--dir", folder, *_DURABLE]
            with server(Path(folder), "redis", command, port, environment=like.environ()) as process:
                pin([process], arena.core)
                return asyncio.run(self._run(f"redis://127.0.0.1:{port}", process))

    async def _run(self, url: str, process: Any) -> dict[str, float]:
        async with Link(url, name="bench") as redis:
            await _open(redis)
            await self._serve(redis, _WARM_UP)
            await redis.command("CONFIG", "RESETSTAT")
            before = cpu_s([process])
            await self._serve(redis, self.requests)
            used = cpu_s([process]) - before
            statistics = await redis.command("INFO", "commandstats")
        calls, micros = _evalsha(statistics)
        if calls != 2 * self.requests:
            raise CannotRunError(f"{self.requests} requests were {calls} scripts")
        return {"scripts_us": micros / self.requests, "redis_us": used / self.requests * 1e6}

    async def _serve(self, redis: Link, requests: int) -> None:
        todo = iter(range(requests))

        async def caller() -> None:
            for _ in todo:
                await _request(redis)

        await asyncio.gather(*(caller() for _ in range(self.at_once)))


async def _request(redis: Link) -> None:
    rid = request_id.new()
    offer = Offer(_AMOUNTS, 4_200, 0, facts.encode(_FACTS))
    admitted = await hot.admit(redis, _PLACE, rid, _VERSIONS, offer)
    if not isinstance(admitted, Admitted):
        raise CannotRunError(f"admit said {admitted}")
    event = facts.encode(_ENDED)
    reply = await hot.settling(
        redis, _PLACE, rid, cost_nanos=118_000, event=event, admitted_us=admitted.at_us, tokens=29
    )
    ended = hot.ended(reply)
    if not isinstance(ended, Ended) or ended.end != "settled":
        raise CannotRunError(f"settle said {ended}")


async def _open(redis: Link) -> None:
    """One partition with an account and a key, every limit of both checked."""
    partition, account, key, _ = _PLACE
    await takeover.reopen(redis, partition, "take", term=1)
    await takeover.reopen(redis, partition, "recover", term=1, epoch=1, config=1, instance="bench")
    await takeover.reopen(redis, partition, "open", term=1)
    policy = {"status": "active", "policy": "{}", **_LIMITS}
    await hot.publish(redis, partition, keyspace.account(partition, account), 1, policy)
    await hot.publish(redis, partition, keyspace.api_key(partition, key), 1, policy)
    await hot.grant(redis, partition, account, number=1, credited_nanos=10**15)


def _evalsha(statistics: bytes) -> tuple[int, int]:
    """Calls, and microseconds in them."""
    line = next(line for line in statistics.decode().splitlines() if line.startswith("cmdstat_evalsha:"))
    fields = dict(field.split("=") for field in line.partition(":")[2].split(","))
    return int(fields["calls"]), int(fields["usec"])
