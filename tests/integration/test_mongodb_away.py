"""MongoDB is away: nothing is lost, and nothing new is admitted once as much waits as was said may wait."""

import asyncio
from pathlib import Path

import pytest

from ledger import audit, hot, keyspace, publish, reopen
from ledger.cold import ColdBook
from ledger.connections import client
from ledger.hot import Admitted, Offer, Refused, Versions
from ledger.link import Link
from ledger.settings import SettingsError, load
from ledger.vault import Vault
from ledger.worker import Worker
from tests.conftest import mongod, running
from tests.integration.ledger_books import PLACE, Ledger, P
from weir.bundled import Mongod

BOUND = 5


CREDITED = 10**6


async def test_admits_stop_at_the_bound_and_settles_do_not(ledger: Ledger) -> None:
    config = int(await ledger.link.command("HGET", keyspace.meta(P), "config"))

    async def admit(rid: str) -> Admitted | Refused:
        return await hot.admit(ledger.link, PLACE, rid, Versions(1, 1, config), Offer([10], 0), backlog_bound=BOUND)

    for n in range(BOUND + 2):  # two more are in flight when the bound is reached
        assert isinstance(await admit(f"r{n}"), Admitted)
    for n in range(BOUND + 2):
        assert (await ledger.settle(f"r{n}")).end == "settled"
    assert await admit("more") == Refused("BACKLOG", ())
    assert await ledger.move() == BOUND + 2
    assert isinstance(await admit("more"), Admitted)
    assert (await ledger.audit()).agrees


def test_the_bound_is_a_setting() -> None:
    assert load({}).backlog_bound == hot.BACKLOG_BOUND
    assert load({"WEIR_BACKLOG_BOUND": "5"}).backlog_bound == 5
    with pytest.raises(SettingsError, match="WEIR_BACKLOG_BOUND"):
        load({"WEIR_BACKLOG_BOUND": "0"})


async def test_a_worker_frees_holds_without_mongodb_and_loses_nothing(
    redis_url: str, tmp_path: Path, vault: Vault
) -> None:
    """The server is killed and comes back on its data; between the two a hold's lease ends and requests are settled."""
    with mongod(tmp_path / "m") as server:
        folder, port = server.folder, server.port
        cold = ColdBook(server.url, timeout_ms=500)
        await cold.prepare()
        await publish.ensure_pepper(cold, vault)
        link = Link(redis_url)
        await link.__aenter__()
        await reopen.reopen(cold, link, await reopen.closed_partitions(link), term=1)
        ledger = Ledger(cold, link, client(redis_url))
        await ledger.customer(10**6)
        worker = Worker(cold, link, ledger.reader, on_ready=lambda: None)
        task = asyncio.create_task(worker.run())
        await ledger.charge("before")
    await ledger.charge(*(f"away{n}" for n in range(20)))
    await ledger.admit("left", 10, lease_us=0)
    async with asyncio.timeout(30):
        while (await ledger.balance())["live"]:
            await asyncio.sleep(0.05)
    again = Mongod(folder, port)
    with running(again.command()):
        async with asyncio.timeout(60):
            while await ledger.waiting():
                await asyncio.sleep(0.05)
        report = await audit.audit(cold, link)
        assert (report.agrees, report.events, report.spent_nanos) == (True, 22, 21 * 5)
        worker.stop()
        async with asyncio.timeout(20):
            await task
        await ledger.reader.aclose()
        await link.__aexit__()
        await cold.close()
