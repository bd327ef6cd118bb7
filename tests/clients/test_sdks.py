"""The versions that run are those that are written down, they name themselves to providers, and they list Weir's models."""

from typing import Any

import pytest

from tests.clients import plain
from tests.clients.sdks import SDKS, Sdk
from tests.clients.sides import Sides, Site, sides

pytestmark = pytest.mark.parametrize("sdk", SDKS, ids=str)
NAMES = {
    ("openai", "python"): "OpenAI/Python ",
    ("openai", "node"): "OpenAI/JS ",
    ("anthropic", "python"): "Anthropic/Python ",
    ("anthropic", "node"): "Anthropic/JS ",
    ("gemini", "python"): "google-genai-sdk/",
    ("gemini", "node"): "google-genai-sdk/",
}


@pytest.mark.wire("2a.1", "2a.2", "3a.1", "3a.3")
async def test_a_version(site: Site, sdk: Sdk) -> None:
    """It is the pinned one, and names itself; what changed between majors travels on, wherever they put their key."""
    about = await site.drivers[sdk].about()
    assert about["version"] == sdk.version
    assert about.get("node", "v22.").startswith("v22.")
    both = await sides(site, sdk)
    direct, through = await both.both(plain.job(sdk))
    assert "error" not in direct
    assert "error" not in through
    [seen], [asked] = both.behind.seen, both.direct.seen
    agent = seen.header("user-agent") or ""
    assert agent.split(" gl-")[0] == NAMES[sdk.family, sdk.language] + sdk.version
    version = {"new": "2026-10-21", "old": "2023-06-01"}[sdk.age] if sdk.family == "anthropic" else None
    assert seen.header("anthropic-version") == asked.header("anthropic-version") == version
    bearer = sdk.family == "openai" or (sdk.family == "anthropic" and sdk.age == "new")
    assert (asked.header("authorization") == "Bearer sk-direct") is bearer
    if sdk.family == "gemini":
        assert seen.target.startswith({"new": "/v1/", "old": "/v1beta/"}[sdk.age])


@pytest.mark.wire("1a.4")
async def test_the_list_of_models(site: Site, sdk: Sdk) -> None:
    both = await sides(site, sdk)
    for asynchronous in (False, True) if sdk.runs_async else (False,):
        listed = await both.ask({"call": "models.list", "args": {}, "asynchronous": asynchronous, "bare": True})
        assert [_name(each) for each in listed["items"]] == [both.model], listed
        one = await _one(both, asynchronous=asynchronous)
        assert _name(one["value"]) == both.model
    assert not both.behind.seen


async def _one(both: Sides, *, asynchronous: bool) -> dict[str, Any]:
    """The model asked for by name."""
    if both.driver.sdk.family == "gemini":
        return await both.ask({"call": "models.get", "args": {}, "asynchronous": asynchronous})
    job = {
        "call": "models.retrieve",
        "positional": [both.model],
        "args": {},
        "asynchronous": asynchronous,
        "bare": True,
    }
    return await both.ask(job)


def _name(model: dict[str, Any]) -> str:
    return str(model.get("id") or model["name"]).removeprefix("models/")
