"""One mechanism each, seen from the promise that it keeps; `python -m tests.mutants` removes it and expects these red."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from gateway import flights
from gateway.flights import Flights
from gateway.settler import Settler
from gateway.spill import Spill
from ledger import audit, hot, keyspace, publish, sweeper
from ledger.cold import ColdBook
from ledger.connections import client
from ledger.facts import Facts
from ledger.hot import Admitted, Offer, Refused, Versions
from ledger.link import Link, StoreUnavailable
from ledger.settlement import Settlement
from ledger.vault import Vault
from tests.conftest import valkey
from tests.integration.ledger_books import PLACE, Ledger, P
from tests.stack import eventually
from weir.bundled import free_port

META = keyspace.meta(P)


class Silent:
    """A flight that has nothing to report."""

    rid = "long"
    place = PLACE

    def look(self, now: float) -> None:
        assert now > 0

    def used_nanos(self) -> int:
        return 0

    def stop(self) -> None:
        raise AssertionError("it has cost nothing")


async def test_a_flight_that_lasts_longer_than_its_lease_is_not_swept(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease_us = 1_500_000
    monkeypatch.setattr(hot, "progress", partial(hot.progress, lease_us=lease_us))
    monkeypatch.setattr(flights, "RENEW_S", 0.2)
    flying = Flights(ledger.link, tick_s=0.1)
    timer = asyncio.create_task(flying.renew_for_ever())
    await ledger.admit(Silent.rid, lease_us=lease_us)
    flying.add(Silent())
    await ledger.admit("left alone", lease_us=lease_us)
    swept, end = 0, asyncio.get_running_loop().time() + 3 * lease_us / 1_000_000
    while asyncio.get_running_loop().time() < end:
        swept += await sweeper.sweep(ledger.link)
        await asyncio.sleep(0.05)
    held = (await ledger.balance())["held"]
    assert (swept, held) == (1, 10), "swept while it was in flight"
    timer.cancel()
    with suppress(asyncio.CancelledError):
        await timer
    assert (await ledger.settle(Silent.rid)).end == "settled"


async def test_another_charge_under_a_known_id_is_never_silent(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis has forgotten that the request ended, and takes a second charge for it, of another amount."""
    monkeypatch.setattr(audit, "_PAUSE_S", 0)
    await ledger.charge("r1", cost=5)
    await ledger.move()
    await ledger.link.command("DEL", keyspace.hold(P, "r1"))
    await ledger.settle("r1", 6)
    await ledger.move()
    assert (await ledger.audit()).dead_events == 1
    assert [event["charge_nanos"] for event in await ledger.kept()] == [5]


async def test_what_a_promoted_server_lost_is_charged_again(ledger: Ledger) -> None:
    """The tail had reached MongoDB, and the replica that is primary now had not got it."""
    await ledger.admit("r1")
    keys = await ledger.link.command("KEYS", f"w1:{{p{P}}}:*")
    replica = {key: await ledger.link.command("DUMP", key) for key in keys}
    await ledger.settle("r1", 7)
    await ledger.move()
    await ledger.link.command("DEL", *await ledger.link.command("KEYS", f"w1:{{p{P}}}:*"))
    for key, dump in replica.items():
        await ledger.link.command("RESTORE", key, 0, dump)
    await ledger.link.command("HSET", META, "server", "the old primary")
    await ledger.reopen()
    assert await ledger.balance() == {"avail": 993, "held": 0, "credited": 1000, "spent": 7, "live": 0}
    assert (await ledger.audit()).agrees


async def offered(ledger: Ledger, versions: Versions, rid: str) -> Admitted | Refused:
    return await hot.admit(ledger.link, PLACE, rid, versions, Offer([10], 0, 0, ledger.facts()))


async def test_after_a_change_nothing_is_admitted_under_the_old_version(ledger: Ledger) -> None:
    """A key's models, an account's markup, a price: the script knows none of them, only that there is a newer version."""
    known = Versions(1, 1, int(await ledger.link.command("HGET", META, "config")))
    records = {
        "key": keyspace.api_key(P, PLACE.key),
        "account": keyspace.account(P, PLACE.account),
        "config": META,
    }
    for name, record in records.items():
        assert isinstance(await offered(ledger, known, f"before {name}"), Admitted)
        now = structs.replace(known, **{name: getattr(known, name) + 1})
        assert await hot.publish(ledger.link, P, record, getattr(now, name), {})
        late = await offered(ledger, known, f"after {name}")
        assert late == Refused("STALE", ()), f"{name}: admitted under the old version"
        known = now
    assert isinstance(await offered(ledger, known, "anew"), Admitted)


async def test_a_revoked_key_is_refused_with_any_version(ledger: Ledger) -> None:
    config = int(await ledger.link.command("HGET", META, "config"))
    assert await hot.publish(ledger.link, P, keyspace.api_key(P, PLACE.key), 2, {"status": "revoked"})
    for version, word in ((1, "STALE"), (2, "REVOKED")):
        reply = await offered(ledger, Versions(version, 1, config), "r1")
        assert reply == Refused(word, ()), "admitted after the revoke"
    assert (await ledger.balance())["held"] == 0


async def test_a_settle_that_no_replica_has_is_not_forgotten(cold: ColdBook, vault: Vault, tmp_path: Path) -> None:
    """The server acknowledges, nobody follows it, and its machine is lost: the gateway still knows the charge."""
    await publish.ensure_pepper(cold, vault)
    url = f"redis://127.0.0.1:{(port := free_port())}"
    reader = client(url)
    async with Link(url) as link, settling(link, tmp_path / "spill") as settler:
        ledger = Ledger(cold, link, reader)
        with valkey(tmp_path / "lost", port=port):
            await ledger.reopen()
            await ledger.customer()
            at_us = (await ledger.admit("r1")).at_us
            facts = msgspec.json.decode(ledger.facts(), type=Facts)
            settler.put(Settlement("r1", *PLACE, cost_nanos=5, tokens=None, admitted_us=at_us, facts=facts))

            async def passed() -> bool:
                """Whether two barriers have gone by, or it was forgotten before."""
                barriers = int(await link.command("HGET", META, "barrier") or 0)
                return not settler._waiting and (barriers > 2 or not settler._kept)

            await eventually(passed, bool)
            assert (await ledger.balance())["spent"] == 5
        with valkey(tmp_path / "empty", port=port):
            await eventually(lambda: answers(link), bool)
            await ledger.reopen()
            with suppress(AssertionError):
                await eventually(ledger.waiting, bool, seconds=5)
            assert (await ledger.balance())["spent"] == 5, "the charge was lost with its server"
            assert await ledger.move() == 1
            assert (await ledger.audit()).agrees
    await reader.aclose()


async def answers(link: Link) -> bool:
    try:
        return bool(await link.command("PING"))
    except StoreUnavailable:
        return False


@asynccontextmanager
async def settling(link: Link, folder: Path) -> AsyncIterator[Settler]:
    """A settler that wants one replica; at the end there is none, so it does not wait for it."""
    settler = Settler(link, spill=Spill(folder), replicas=1)
    settler.start()
    try:
        yield settler
    finally:
        await settler.close(0)
