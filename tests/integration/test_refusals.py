"""What is refused, and how: every answer of the contract in OpenAI's shape, and nothing held or charged for it."""

import asyncio
import json
import uuid
from typing import Any

import httpx2
import openai
import pytest

from bench.provider import Behaviour, ScriptedProvider
from ledger import keys
from tests.stack import Customer, Stack, http

ASK = [{"role": "user", "content": "Hello"}]


async def post(stack: Stack, key: str, body: Any, *, path: str = "/openai/v1/chat/completions", **more: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **more}
    if key:
        headers["authorization"] = f"Bearer {key}"
    async with http() as client:
        return await client.post(stack.gateway + path, content=content, headers=headers)


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The error of a refusal, after checking its shape."""
    assert answer.status_code == status, answer.text
    error = dict(answer.json()["error"])
    assert error["code"] == code
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["x-weir-refusal"] == code
    assert len(answer.headers["x-weir-request-id"]) == 32
    return error


async def untouched(stack: Stack, customer: Customer) -> None:
    balance = await stack.balance(customer.id)
    assert balance["held_nanos"] == balance["spent_nanos"] == 0


@pytest.fixture
async def provider() -> Any:
    async with ScriptedProvider() as running:
        yield running


def changed(key: str) -> str:
    """The same key with another last character of the secret, and a checksum that does not fit."""
    return key[:-1] + ("A" if key[-1] != "A" else "B")


@pytest.mark.wire("1d.1")
async def test_no_key_or_a_bad_one(stack: Stack, provider: ScriptedProvider) -> None:
    model, customer = await stack.model(provider.url), await stack.customer()
    stranger, _ = keys.mint(keys.parse(customer.key.encode()).partition)  # type: ignore[union-attr]
    for bad in ("", "junk", changed(customer.key), stranger, "sk-" + "x" * 48):
        refused(await post(stack, bad, {"model": model, "messages": ASK}), 401, "invalid_api_key")
    other_scheme = await post(stack, "", {"model": model, "messages": ASK}, authorization=f"Basic {customer.key}")
    refused(other_scheme, 401, "invalid_api_key")
    assert provider.stats.requests == 0
    async with openai.AsyncOpenAI(base_url=stack.base_url, api_key="junk", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model=model, messages=ASK)  # type: ignore[arg-type]
    assert caught.value.code == "invalid_api_key"
    assert caught.value.request_id


def forged(key: str) -> str:
    """Another secret under the same id, with a checksum that fits."""
    named, _, _ = key.rpartition("_")
    body = f"{named}_{'A' * 32}"
    return body + keys._checksum(body.encode())


async def test_the_secret_is_what_counts(stack: Stack, provider: ScriptedProvider) -> None:
    """Who knows a key's id has no key, whether the gateway has the true one in memory or not."""
    model, customer = await stack.model(provider.url), await stack.customer()
    body = {"model": model, "messages": ASK}
    assert keys.is_whole(forged(customer.key).encode())
    assert keys.parse(forged(customer.key).encode()) == keys.parse(customer.key.encode())
    refused(await post(stack, forged(customer.key), body), 401, "invalid_api_key")
    assert (await post(stack, customer.key, body)).status_code == 200
    refused(await post(stack, forged(customer.key), body), 401, "invalid_api_key")
    assert provider.stats.requests == 1


async def test_a_key_is_of_use_in_its_networks_only(stack: Stack, provider: ScriptedProvider) -> None:
    """Also when the gateway has just served it to somebody else, and at once when they change."""
    model = await stack.model(provider.url)
    customer = await stack.customer(key={"networks": ["127.0.0.1/32"]})
    one, body = f"/accounts/{customer.id}/api-keys/{customer.key_id}", {"model": model, "messages": ASK}
    elsewhere = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
    async with http(transport=elsewhere) as client:
        path, authorization = f"{stack.gateway}/openai/v1/chat/completions", f"Bearer {customer.key}"
        for _ in range(2):
            answer = await client.post(path, json=body, headers={"authorization": authorization})
            refused(answer, 403, "network_not_allowed")
            assert (await post(stack, customer.key, body)).status_code == 200
    await stack.ask("PATCH", one, {"networks": ["127.0.0.2/32"]})
    for _ in range(2):
        refused(await post(stack, customer.key, body), 403, "network_not_allowed")
    assert provider.stats.requests == 2
    await stack.ask("PATCH", one, {"networks": None})
    assert (await post(stack, customer.key, body)).status_code == 200
    await stack.ask("PATCH", one, {"networks": ["127.0.0.2/32"]})
    async with http() as client:
        balance = await client.get(f"{stack.gateway}/weir/v1/balance", headers={"authorization": authorization})
    assert (balance.status_code, balance.headers["x-weir-refusal"]) == (403, "network_not_allowed")


async def test_a_key_is_of_use_for_its_endpoints_only(stack: Stack, provider: ScriptedProvider) -> None:
    """Also when the gateway has just served it something else, and at once when they change."""
    model = await stack.model(provider.url)
    customer = await stack.customer(key={"endpoints": ["chat.completions"]})
    one = f"/accounts/{customer.id}/api-keys/{customer.key_id}"
    chat, other = {"model": model, "messages": ASK}, {"model": model, "prompt": "Hello"}
    for _ in range(2):
        answer = await post(stack, customer.key, other, path="/openai/v1/completions")
        refused(answer, 403, "endpoint_not_allowed")
        assert (await post(stack, customer.key, chat)).status_code == 200
    await stack.ask("PATCH", one, {"endpoints": ["completions"]})
    for _ in range(2):
        refused(await post(stack, customer.key, chat), 403, "endpoint_not_allowed")
    assert provider.stats.requests == 2


async def test_a_revoked_key_is_refused_at_once(stack: Stack, provider: ScriptedProvider) -> None:
    model, customer = await stack.model(provider.url), await stack.customer()
    assert (await post(stack, customer.key, {"model": model, "messages": ASK})).status_code == 200
    await stack.ask("DELETE", f"/accounts/{customer.id}/api-keys/{customer.key_id}")
    refused(await post(stack, customer.key, {"model": model, "messages": ASK}), 401, "invalid_api_key")


async def test_a_suspended_account(stack: Stack, provider: ScriptedProvider) -> None:
    model, customer = await stack.model(provider.url), await stack.customer()
    body = {"model": model, "messages": ASK}
    assert (await post(stack, customer.key, body)).status_code == 200
    await stack.ask("PATCH", f"/accounts/{customer.id}", {"status": "suspended"})
    refused(await post(stack, customer.key, body), 403, "account_suspended")
    await stack.ask("PATCH", f"/accounts/{customer.id}", {"status": "active"})
    assert (await post(stack, customer.key, body)).status_code == 200


@pytest.mark.wire("1c.4", "6.10")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b'{"model": "m"',
        b'["model"]',
        b'{"messages": []}',
        b'{"model": 5, "messages": []}',
        b'{"model": "MODEL", "model": "other", "messages": []}',
        b'{"model": "MODEL", "messages": [{"role": "user", "role": "system", "content": "x"}]}',
        b'{"model": "MODEL", "mod\\u0065l": "other", "messages": []}',
        b'{"model": "MODEL", "messages": [], "temperature": NaN}',
        b'{"model": "MODEL", "messages": [{"role": "user", "content": "\xff"}]}',
        b'\xef\xbb\xbf{"model": "MODEL", "messages": []}',
        b'{"model": "MODEL", "messages": [], "max_tokens": -1}',
        b'{"model": "MODEL", "messages": [], "max_tokens": 1.5}',
        b'{"model": "MODEL", "messages": [], "max_completion_tokens": "many"}',
        b'{"model": "MODEL", "messages": [], "n": 0}',
        b'{"model": "MODEL", "messages": [], "stream": "yes"}',
        b'{"model": "MODEL", "messages": [], "stream_options": []}',
    ],
)
async def test_a_body_that_cannot_be_served(stack: Stack, provider: ScriptedProvider, body: bytes) -> None:
    model, customer = await stack.model(provider.url), await stack.customer()
    answer = await post(stack, customer.key, body.replace(b"MODEL", model.encode()))
    error = refused(answer, 400, "invalid_request")
    assert error["type"] == "invalid_request_error"
    assert provider.stats.requests == 0
    await untouched(stack, customer)


async def test_an_unknown_model_and_one_that_the_key_may_not_use(stack: Stack, provider: ScriptedProvider) -> None:
    model = await stack.model(provider.url)
    customer = await stack.customer(key={"models": ["another"]})
    refused(await post(stack, customer.key, {"model": "gpt-none", "messages": ASK}), 404, "model_not_found")
    refused(await post(stack, customer.key, {"model": model, "messages": ASK}), 404, "model_not_found")
    # A model that is made now is served now, and so is one that the key gets now.
    await stack.ask("PATCH", f"/accounts/{customer.id}/api-keys/{customer.key_id}", {"models": [model]})
    assert (await post(stack, customer.key, {"model": model, "messages": ASK})).status_code == 200


@pytest.mark.wire("1d.4")
async def test_an_empty_balance_and_one_that_is_too_small(stack: Stack, provider: ScriptedProvider) -> None:
    model = await stack.model(provider.url)
    poor = await stack.customer("0")
    error = refused(await post(stack, poor.key, {"model": model, "messages": ASK}), 402, "insufficient_balance")
    assert "$0.00 is available" in error["message"]
    small = await stack.customer("0.002")
    body = {"model": model, "messages": ASK, "max_tokens": 1000}
    error = refused(await post(stack, small.key, body), 402, "insufficient_balance")
    assert "An output cap of " in error["message"]
    fits = int(error["message"].split("An output cap of ")[1].split(" ")[0])
    assert (await post(stack, small.key, {**body, "max_tokens": fits})).status_code == 200
    async with openai.AsyncOpenAI(base_url=stack.base_url, api_key=poor.key) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model=model, messages=ASK)  # type: ignore[arg-type]
    assert caught.value.status_code == 402
    await untouched(stack, poor)


@pytest.mark.wire("1d.3", "1d.4")
async def test_rate_and_concurrency(stack: Stack) -> None:
    async with ScriptedProvider(Behaviour(gate=True)) as provider:
        model = await stack.model(provider.url)
        customer = await stack.customer(key={"concurrency": 1})
        body = {"model": model, "messages": ASK, "max_tokens": 10}
        import asyncio

        first = asyncio.create_task(post(stack, customer.key, body))
        await provider.wait_for(lambda p: p.stats.held == 1)
        answer = await post(stack, customer.key, body)
        refused(answer, 429, "concurrency_limit_exceeded")
        assert int(answer.headers["retry-after"]) >= 1
        provider.release()
        assert (await first).status_code == 200
        provider.script(Behaviour())
        limited = await stack.customer(key={"requests_per_minute": 2})
        answers = [await post(stack, limited.key, body) for _ in range(3)]
        assert [a.status_code for a in answers] == [200, 200, 429]
        refused(answers[2], 429, "rate_limit_exceeded")
        assert 1 <= int(answers[2].headers["retry-after"]) <= 30
        assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
        assert [a.headers["x-ratelimit-remaining-requests"] for a in answers[:2]] == ["1", "0"]


async def test_requests_in_a_row_on_one_connection_need_one_place(stack: Stack, provider: ScriptedProvider) -> None:
    """Sent without waiting for answers (RFC 9112 9.3.2): each is settled before the next is admitted."""
    model, customer = await stack.model(provider.url), await stack.customer(key={"concurrency": 1})
    body, url = json.dumps({"model": model, "messages": ASK}).encode(), httpx2.URL(stack.gateway)
    head = f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {customer.key}\r\n"
    one = head.encode() + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(one * 20)
    for _ in range(20):
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        [length] = [int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()


@pytest.mark.wire("0.4", "6.11")
async def test_paths_methods_and_encodings(stack: Stack, provider: ScriptedProvider) -> None:
    model, customer = await stack.model(provider.url), await stack.customer()
    body = {"model": model, "messages": ASK}
    for path in (
        "/openai/v1/files",
        "/openai/v1/chat/completions/",
        "/openai/v1%2Fchat/completions",
        "/openai/v1/%63hat/completions",
        "/",
        "/v1//x",
    ):
        refused(await post(stack, customer.key, body, path=path), 404, "unknown_path")
    async with http() as client:
        got = await client.get(
            f"{stack.base_url}/chat/completions", headers={"authorization": f"Bearer {customer.key}"}
        )
    refused(got, 405, "method_not_allowed")
    packed = await post(stack, customer.key, body, **{"content-encoding": "gzip"})
    refused(packed, 415, "unsupported_encoding")
    assert provider.stats.requests == 0


@pytest.mark.wire("6.9")
async def test_a_body_over_the_cap(stack: Stack, provider: ScriptedProvider) -> None:
    model, customer = await stack.model(provider.url), await stack.customer()
    huge = b'{"model": "%s", "messages": [{"role": "user", "content": "%s"}]}' % (
        model.encode(),
        b"x" * (33 * 1024 * 1024),
    )
    answer = await post(stack, customer.key, huge)  # not a reset connection: what is still on its way is passed over
    refused(answer, 413, "request_too_large")
    assert answer.headers["connection"] == "close"
    await untouched(stack, customer)


async def test_an_upstream_that_is_down(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        url = provider.url
    model, customer = await stack.model(url), await stack.customer()
    answer = await post(stack, customer.key, {"model": model, "messages": ASK})
    refused(answer, 503, "temporarily_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    [event] = await stack.events(customer.id, 1)
    assert (event["end"], event["charge_nanos"]) == ("voided", 0)
    await untouched(stack, customer)


@pytest.mark.wire("5.10")
@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
async def test_the_providers_own_errors_pass_and_cost_nothing(stack: Stack, status: int) -> None:
    error = {"error": {"message": "no", "type": "x", "param": None, "code": "their_code"}}
    behaviour = Behaviour(status=status, body=json.dumps(error).encode(), content_type="application/json")
    async with ScriptedProvider(behaviour) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        answer = await post(stack, customer.key, {"model": model, "messages": ASK})
        assert answer.status_code == status
        assert answer.json() == error
        assert "x-weir-refusal" not in answer.headers
        [event] = await stack.events(customer.id, 1)
        assert (event["end"], event["outcome"], event["status"]) == ("voided", "refused_upstream", status)
    await untouched(stack, customer)


@pytest.mark.wire("6.4")
@pytest.mark.parametrize("status", [401, 403])
async def test_the_operators_refused_credential_is_not_the_callers_fault(stack: Stack, status: int) -> None:
    body = b'{"error": {"message": "Incorrect API key provided: sk-up*****m. org-secret"}}'
    async with ScriptedProvider(Behaviour(status=status, body=body, content_type="application/json")) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        answer = await post(stack, customer.key, {"model": model, "messages": ASK})
    refused(answer, 502, "upstream_error")
    assert "org-secret" not in answer.text
    await untouched(stack, customer)


async def test_refusals_are_counted_by_code_only(stack: Stack) -> None:
    junk = uuid.uuid4().hex
    await post(stack, junk, {"model": junk, "messages": ASK})
    text = await stack.metrics()
    assert 'weir_refusals_total{code="invalid_api_key"}' in text
    assert junk not in text
