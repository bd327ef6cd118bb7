"""How calls end that do not go as planned: an SDK that tries again, a caller who leaves, a stream that breaks."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.clients import plain
from tests.clients.sdks import SDKS, Sdk
from tests.clients.sides import Sides, Site, expected, sides, steady, without_weirs
from tests.integration.test_main_job import expected_nanos
from tests.stack import http

pytestmark = pytest.mark.parametrize("sdk", SDKS, ids=str)
WORDS = " ".join(f"word{number}" for number in range(40))
AGAIN = Behaviour(status=500, headers={"retry-after-ms": "1"}, times=2)
BREAKS = Behaviour(text=WORDS, chunks=40, cut_after_chunks=10)
FAILS = Behaviour(text=WORDS, chunks=40, error_after_chunks=10)
WAITS = Behaviour(text=WORDS, chunks=40, stall_after_chunks=10)


@pytest.mark.wire("5.7")
async def test_each_try_is_a_request_and_only_an_answer_costs(site: Site, sdk: Sdk) -> None:
    both = await sides(site, sdk)
    for job in plain.each_way(sdk):
        direct, through = await both.both(job | {"retries": 2}, AGAIN, Behaviour())
        assert "error" not in direct
        assert steady(without_weirs(through)) == steady(expected(direct))
    count = len(plain.each_way(sdk))
    tries = [seen.header("x-stainless-retry-count") for seen in both.behind.seen]
    assert tries == [seen.header("x-stainless-retry-count") for seen in both.direct.seen]
    assert [seen.status for seen in both.behind.seen] == [500, 500, 200] * count
    events = await site.stack.events(both.customer.id, len(tries))
    ends = sorted((each["end"], each["outcome"], each["status"], each["charge_nanos"]) for each in events)
    whole, failed = ("settled", "complete", 200, expected_nanos(2, 5)), ("voided", "refused_upstream", 500, 0)
    assert ends == [whole] * count + [failed] * count * 2
    assert len({each["request_id"] for each in events}) == len(tries)


def leavings(sdk: Sdk) -> list[dict[str, Any]]:
    """Every way to leave after five events: to close the stream, to abort it, to cancel the task that reads it.

    Google's SDKs do not know the first in Node and in Python's asynchronous client: there a `break` keeps the connection.
    """
    job = plain.job(sdk, streamed=True) | {"leave_after": 5}
    if sdk.language == "python":
        return [job, job | {"asynchronous": True, "abort": sdk.family == "gemini"}]
    return [job | {"abort": True}] + [job] * (sdk.family != "gemini")


@pytest.mark.wire("5.5")
async def test_who_leaves_pays_what_the_provider_counted(site: Site, sdk: Sdk) -> None:
    both = await sides(site, sdk)
    for count, job in enumerate(leavings(sdk), start=1):
        await _leave(both, job)
        assert (await site.stack.balance(both.customer.id))["held_nanos"] > 0, (
            "the hold stays while the upstream goes on"
        )
        await both.behind.wait_for(lambda provider: provider.stats.held == 1)
        both.behind.release()
        event = (await site.stack.events(both.customer.id, count))[0]
        assert (event["end"], event["outcome"], event["estimated"]) == ("settled", "client_left", False)
        assert event["charge_nanos"] == expected_nanos(2, 40)


@pytest.mark.wire("5.5")
async def test_who_leaves_is_noticed(site: Site, sdk: Sdk) -> None:
    """The upstream may be set to be cut off: it sees at once that nobody listens any more."""
    both = await sides(site, sdk, on_client_left="abort")
    for count, job in enumerate(leavings(sdk), start=1):
        await _leave(both, job)
        await both.behind.wait_for(_cut_off(count))
        event = (await site.stack.events(both.customer.id, count))[0]
        assert (event["end"], event["outcome"], event["estimated"]) == ("settled", "client_left", True)
        assert event["charge_nanos"] >= expected_nanos(2, 4), "of five events, one may be without a word"


def _cut_off(count: int) -> Callable[[ScriptedProvider], bool]:
    return lambda provider: provider.stats.by_outcome.get("client_left") == count


async def _leave(both: Sides, job: dict[str, Any]) -> None:
    """Go after five events of ten that were sent, and wait until Weir has looked at its connections since."""
    both.behind.queue(WAITS)
    told = await both.ask(job)
    assert len(told["items"]) >= 5 if job.get("abort") else len(told["items"]) == 5
    async with http() as client:
        assert (await client.get(f"{both.stack.gateway}/healthz")).status_code == 200


@pytest.mark.wire("1d.2", "2d.2", "3d.1", "5.1")
async def test_a_stream_that_breaks_raises(site: Site, sdk: Sdk) -> None:
    """What the provider told is told; where it only broke off, an error of the dialect says so, and the SDK raises that."""
    both = await sides(site, sdk)
    for job in plain.each_way(sdk)[len(plain.each_way(sdk)) // 2 :]:
        direct, through = await both.both(job, FAILS)
        assert "error" in direct
        assert without_weirs(through) == expected(direct)
        direct, through = await both.both(job, BREAKS)
        assert "error" in direct
        assert "The upstream broke off" in through["message"]
    events = await site.stack.events(both.customer.id, len(both.behind.seen))
    assert {each["end"] for each in events} == {"settled"}
    assert all(each["charge_nanos"] > 0 for each in events)
