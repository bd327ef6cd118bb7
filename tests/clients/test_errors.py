"""Every refusal, the provider's and Weir's own, is the exception that the SDK has for it, and can be read."""

import pytest

from bench.provider import Behaviour
from tests.clients import plain
from tests.clients.case import HEADERS
from tests.clients.sdks import SDKS, Sdk
from tests.clients.sides import Shown, Sides, Site, expected, sides, without_weirs
from tests.stack import Customer, Stack

pytestmark = pytest.mark.parametrize("sdk", SDKS, ids=str)
STATUSES = {"openai": (400, 404, 500), "anthropic": (400, 404, 500, 529), "gemini": (400, 404, 429, 500, 503)}
# What is stored with the provider, which one credential for all callers cannot keep apart.
STORED = {"openai": "files.list", "anthropic": "messages.batches.list", "gemini": "files.list"}
# What Weir's own refusals are called in each dialect, beside Weir's code.
TYPES = {
    "openai": {
        401: "authentication_error", 402: "insufficient_quota", 404: "invalid_request_error", 429: "rate_limit_error",
    },
    "anthropic": {401: "authentication_error", 402: "billing_error", 404: "not_found_error", 429: "rate_limit_error"},
    "gemini": {401: "UNAUTHENTICATED", 402: "FAILED_PRECONDITION", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"},
}  # fmt: skip


async def test_a_providers_error_stays_what_it_is(site: Site, sdk: Sdk) -> None:
    statuses = STATUSES[sdk.family]
    both = await sides(site, sdk)
    for status in statuses:
        for job in plain.each_way(sdk):
            direct, through = await both.both(job, Behaviour(status=status, headers=HEADERS))
            assert "error" in direct
            assert without_weirs(through) == expected(direct)
    events = await site.stack.events(both.customer.id, len(both.behind.seen))
    assert {(each["end"], each["outcome"], each["charge_nanos"]) for each in events} == {
        ("voided", "refused_upstream", 0)
    }
    assert {each["status"] for each in events} == set(statuses)


@pytest.mark.wire("5.7")
async def test_a_provider_can_say_that_another_try_is_no_use(site: Site, sdk: Sdk) -> None:
    """The SDKs of OpenAI and Anthropic would try twice more; Google's try once anyway."""
    no_use = Behaviour(status=429, headers={"x-should-retry": "false", "retry-after": "30"})
    retries = {"retries": 2} if sdk.family != "gemini" else {}
    both = await sides(site, sdk)
    direct, through = await both.both(plain.job(sdk) | retries, no_use)
    assert without_weirs(through) == expected(direct)
    assert direct["error"] == ("RateLimitError" if retries else plain.client_error(sdk))
    assert len(both.direct.seen) == len(both.behind.seen) == 1


@pytest.mark.wire("1d.1", "1d.4", "2a.1", "2d.1", "3a.1", "3d.1")
async def test_weirs_refusals(site: Site, sdk: Sdk) -> None:
    """They are told as the provider itself would: by the same class, as the one with the same status from a provider."""
    job, unknown = plain.job(sdk), plain.job(sdk, model="no-such-model")
    limited, poor = await site.stack.customer(requests_per_minute=1), await site.stack.customer("0")
    both = await sides(site, sdk)
    _refused(await _class_of(both, 401), await both.ask(job, key="weir_junk"), 401, "invalid_api_key", sdk)
    _refused(await _class_of(both, 402), await both.ask(job, key=poor.key), 402, "insufficient_balance", sdk)
    _refused(await _class_of(both, 404), await both.ask(unknown), 404, "model_not_found", sdk)
    stored = await both.ask({"call": STORED[sdk.family], "args": {}, "bare": True})
    _refused(await _class_of(both, 404), stored, 404, "unknown_path", sdk)
    assert "error" not in await both.ask(job, key=limited.key)
    told = await both.ask(job, key=limited.key)
    _refused(await _class_of(both, 429), told, 429, "rate_limit_exceeded", sdk)
    assert 0 < _wait_s(told, sdk) <= 60
    assert len(both.behind.seen) == 1
    await _cost_nothing(site.stack, poor, both.customer)


async def _class_of(both: Sides, status: int) -> str:
    """The exception that the SDK has for a status, which here comes from a provider. A 402 is retried by nobody."""
    both.direct.queue(Behaviour(status=status))
    found = await both.ask_directly(plain.job(both.driver.sdk) | ({"retries": 2} if status == 402 else {}))
    assert "error" in found, found
    return str(found["error"])


def _refused(name: str, told: Shown, status: int, code: str, sdk: Sdk) -> None:
    assert told["error"] == name
    kind = TYPES[sdk.family][status]
    if sdk.family == "gemini":
        error = plain.gemini_error(told)
        assert (error["code"], error["status"], error["details"][0]["reason"]) == (status, kind, code)
        assert (
            (told["code"], told["status"]) == (status, kind) if sdk.language == "python" else told["status"] == status
        )
        return
    headers = told["headers"]
    assert headers["x-weir-refusal"] == code
    assert told.get("status_code", told.get("status")) == status
    assert told.get("request_id", told.get("requestID")) == headers["x-weir-request-id"]
    if sdk.family == "openai":
        assert (told["code"], told["type"]) == (code, kind)
        assert told["param"] == ("model" if code == "model_not_found" else None)
        return
    error = told["body"]["error"]
    assert (error["type"], error["details"]["error_code"]) == (kind, code)
    assert told.get("type", kind) == kind
    assert told.get("error_code", told.get("errorCode", code)) == code


def _wait_s(told: Shown, sdk: Sdk) -> float:
    """How long a caller is told to wait."""
    if sdk.family != "gemini":
        return float(told["headers"]["retry-after"])
    [wait] = [each for each in plain.gemini_error(told)["details"] if each["@type"].endswith("RetryInfo")]
    return float(wait["retryDelay"].removesuffix("s"))


async def _cost_nothing(stack: Stack, *customers: Customer) -> None:
    for customer in customers:
        balance = await stack.balance(customer.id)
        assert balance["spent_nanos"] == balance["held_nanos"] == 0
