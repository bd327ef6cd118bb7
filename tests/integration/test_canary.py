"""No content anywhere: a canary in prompts and answers appears in no file, log or metric of any process.

The same scan must find a control canary that was planted in each of those places first: a scan that cannot find anything
proves nothing. mongod's compression is off here, because it hides most strings from a scan (reliability.md 8).
"""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from bench.provider import Behaviour, ScriptedProvider
from ledger.cold import ColdBook
from ledger.connections import client as redis_client
from tests.conftest import mongod, valkey
from tests.stack import Stack, http, running_stack

PLAIN = ("--wiredTigerCollectionBlockCompressor", "none", "--wiredTigerJournalCompressor", "none")


def holds(folder: Path, canary: str) -> list[Path]:
    """Every file below the folder that has the canary in its bytes."""
    needle = canary.encode()
    return [path for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Stack]:
    """A Weir whose stores, logs and metrics are all below the test's folder."""
    with valkey(tmp_path / "valkey") as hot, mongod(tmp_path / "mongod", *PLAIN) as cold:
        urls = {"WEIR_REDIS_URL": hot.url, "WEIR_MONGO_URL": cold.url}
        with running_stack(tmp_path / "weir", **urls) as stack:
            yield stack


async def use_every_way(stack: Stack, canary: str) -> None:
    """Requests that succeed, fail, break, leave and are refused, each with the canary in all that it carries."""
    said = [{"role": "user", "content": canary}]
    async with ScriptedProvider(Behaviour(text=f"You said {canary} .")) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        url = f"{stack.base_url}/chat/completions"
        auth = {"authorization": f"Bearer {customer.key}"}
        async with http(headers=auth) as client:
            whole = {"model": model, "messages": said, "user": canary, "metadata": {"note": canary}}
            assert canary in (await client.post(url, json=whole)).text
            assert canary in (await client.post(url, json={**whole, "stream": True})).text
            await client.post(f"{url}?key={canary}", json={**whole, "model": canary})
            await client.post(url, content=f'{{"model": "{model}", "messages": ["{canary}"')
            await client.post(url, json={**whole, "max_tokens": canary}, headers={"x-note": canary, "cookie": canary})
            await client.get(f"{stack.gateway}/{canary}?q={canary}")
            for failing in (
                Behaviour(status=500, body=canary.encode()),
                Behaviour(status=401, body=canary.encode()),
                Behaviour(status=200, body=f"not json {canary}".encode(), content_type="application/json"),
                Behaviour(text=f"{canary} " * 20, chunks=20, cut_after_chunks=3),
                Behaviour(text=f"{canary} " * 20, chunks=20, error_after_chunks=3),
            ):
                provider.queue(failing)
                try:
                    await client.post(url, json={**whole, "stream": True})
                except httpx2.TransportError:
                    continue
            provider.script(Behaviour(text=f"{canary} " * 20, chunks=20, stall_after_chunks=5))
            async with client.stream("POST", url, json={**whole, "stream": True}) as answer:
                async for data in answer.aiter_raw():
                    assert data
                    break
            await provider.wait_for(lambda p: p.stats.held == 1)
            provider.release()
        async with http(headers={"authorization": f"Bearer {canary}"}) as client:
            await client.post(url, json=whole)
        await stack.events(customer.id, 8)
        await stack.settled(customer.id)


async def plant(stack: Stack, control: str, folder: Path) -> None:
    """The control canary in each place that is scanned."""
    redis = redis_client(stack.env["WEIR_REDIS_URL"])
    await redis.set("control", control)
    await redis.aclose()
    cold = ColdBook(stack.env["WEIR_MONGO_URL"])
    await cold.db["control"].insert_one({"control": control})
    await cold.client.admin.command("fsync")
    await cold.close()
    with (folder / "weir" / "logs" / "gateway.log").open("a") as log:
        log.write(f"{control}\n")
    code = f"from prometheus_client import Counter; Counter('control_{control}', 'x').inc()"
    env = {**stack.env, "PROMETHEUS_MULTIPROC_DIR": str(folder / "weir" / "metrics")}
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], env=env, check=False)


async def test_no_content_is_kept_anywhere(places: Stack, tmp_path: Path) -> None:
    canary, control = f"canary{uuid.uuid4().hex}", f"control{uuid.uuid4().hex}"
    await use_every_way(places, canary)
    await plant(places, control, tmp_path)
    where = {path.relative_to(tmp_path).parts[0:2] for path in holds(tmp_path, control)}
    assert any(part[0] == "valkey" for part in where)
    assert any(part[0] == "mongod" for part in where)
    assert ("weir", "logs") in where
    metrics = await places.metrics()
    assert control in metrics
    assert holds(tmp_path, canary) == []
    assert canary not in metrics
    places.stop()
    assert holds(tmp_path, canary) == [], "what stopping wrote"
    assert places.process.stderr is not None
    assert canary not in places.process.stderr.read()
