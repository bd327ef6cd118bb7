"""What an SDK returns is what it would have returned without Weir; what it asked for is what the provider is asked."""

import json

import pytest

from tests.clients import cases_anthropic, cases_gemini, cases_openai
from tests.clients.case import Case
from tests.clients.sdks import SDKS, Sdk
from tests.clients.sides import Sides, Site, expected, job, others, sent, sides, steady, without_weirs

CASES = {"openai": cases_openai.CASES, "anthropic": cases_anthropic.CASES, "gemini": cases_gemini.CASES}
EACH = [
    pytest.param(sdk, dialect, id=f"{sdk}-{dialect}")
    for sdk in SDKS
    for dialect in sorted({case.dialect for case in CASES[sdk.family]})
]


@pytest.mark.wire("5.4", "6.2", "6.3", "6.6")
@pytest.mark.parametrize(("sdk", "dialect"), EACH)
async def test_answers(site: Site, subtests: pytest.Subtests, sdk: Sdk, dialect: str) -> None:
    count = 0
    both = await sides(site, sdk, dialect)
    for case in (case for case in CASES[sdk.family] if case.dialect == dialect):
        with subtests.test(case.name):
            await _answer(both, case)
        count += len(both.behind.seen)
        both.direct.reset()
        both.behind.reset()
    await _charged(both, count)


async def _answer(both: Sides, case: Case) -> None:
    for asynchronous in (False, True) if both.driver.sdk.runs_async else (False,):
        direct, through = await both.both(job(case, asynchronous=asynchronous), case.answer)
        assert "error" not in direct, direct
        assert case.says in json.dumps([direct.get("value"), direct.get("items")])
        assert steady(without_weirs(through)) == steady(expected(direct))
    _asked_the_same(both, case)


def _asked_the_same(both: Sides, case: Case) -> None:
    for direct, behind in zip(both.direct.seen, both.behind.seen, strict=True):
        assert behind.credential == "sk-upstream"
        assert not others(behind)
        asked = sent(behind)
        if case.name == "chat-stream-plain":  # Weir asks for the usage that it charges by (wire.md 1b.3)
            asked["body"] = asked["body"].replace(b',"stream_options":{"include_usage":true}', b"")
        assert asked == sent(direct)


async def _charged(both: Sides, count: int) -> None:
    """An event for each request, each with its charge, and nothing else."""
    events = await both.stack.events(both.customer.id, count)
    assert len(events) == count
    assert {(event["end"], event["outcome"], event["status"]) for event in events} == {("settled", "complete", 200)}
    # Sound has no room for usage: wire.md 1b.9.
    assert {event["endpoint"] for event in events if event["estimated"]} <= {"audio.speech"}
    balance = await both.stack.settled(both.customer.id)
    assert balance["spent_nanos"] == sum(event["charge_nanos"] for event in events)
