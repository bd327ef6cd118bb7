"""Every dialect through the whole product: the fixture's bytes reach the caller, and the event has the fixture's usage."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from bench.provider import Behaviour, ScriptedProvider
from tests.stack import Customer, Stack, http

FIXTURES = Path(__file__).parent.parent / "fixtures"
METERED = sorted(
    path.name.removesuffix(".expect.json")
    for path in FIXTURES.glob("*.expect.json")
    if json.loads(path.read_text())["meter"] is not None
)
# Where a dialect is, the provider of its upstreams, how its key is sent, and what a request asks.
ROUTES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "openai.chat": ("/openai/v1/chat/completions", "openai", "bearer", {"messages": [{"role": "user", "content": "Hi"}]}),
    "openai.responses": ("/openai/v1/responses", "openai", "bearer", {"input": "Hi"}),
    "openai.embeddings": ("/openai/v1/embeddings", "openai", "bearer", {"input": "Hi"}),
    "xai.chat": ("/xai/v1/chat/completions", "xai", "bearer", {"messages": [{"role": "user", "content": "Hi"}]}),
    "anthropic.messages": (
        "/anthropic/v1/messages", "anthropic", "x-api-key",
        {"max_tokens": 500, "messages": [{"role": "user", "content": "Hi"}]},
    ),
    "gemini.generate": (
        "/gemini/v1beta/models/{}:{}", "gemini", "x-goog-api-key", {"contents": [{"parts": [{"text": "Hi"}]}]},
    ),
}  # fmt: skip


def fixture(name: str) -> tuple[dict[str, Any], bytes]:
    expect = json.loads((FIXTURES / f"{name}.expect.json").read_text())
    return expect, (FIXTURES / expect["body"]).read_bytes()


async def call(stack: Stack, customer: Customer, model: str, kind: str, *, streamed: bool, root: bool = False) -> Any:
    """A request in the dialect of `kind`, below its prefix or at the bare root."""
    path, provider, place, body = ROUTES[kind]
    if provider == "gemini":
        path = path.format(model, "streamGenerateContent?alt=sse" if streamed else "generateContent")
    else:
        body = {**body, "model": model, **({"stream": True} if streamed else {})}
    if root:
        path = path[path.index("/v1") :]
    header = {"authorization": f"Bearer {customer.key}"} if place == "bearer" else {place: customer.key}
    if provider == "anthropic":
        header["anthropic-version"] = "2023-06-01"
    async with http() as client:
        return await client.post(stack.gateway + path, json=body, headers=header)


@pytest.mark.wire("0.1", "0.2", "4.1", "4.2", "5.4", "6.3")
@pytest.mark.parametrize("root", [False, True], ids=["prefix", "root"])
@pytest.mark.parametrize("name", METERED)
async def test_a_fixture_from_end_to_end(stack: Stack, name: str, root: bool) -> None:
    expect, body = fixture(name)
    kind, streamed = expect["format"], expect["body"].endswith(".sse")
    if kind == "xai.chat" and root:
        kind = "openai.chat"
    provider_name = ROUTES[expect["format"]][1]
    served = dict(expect["meter"])
    served_model = served.pop("model", None)
    async with ScriptedProvider() as provider:
        base = provider.url + ("/v1" if provider_name in ("openai", "xai") else "")
        upstream = {"provider": provider_name, "base_url": base}
        tiers: dict[str, Any] = {"priority": {}, "flex": {}}
        price = {"input_per_million_usd": "2.5", "output_per_million_usd": "10", "service_tiers": tiers}
        model = await stack.model(
            provider.url, upstream=upstream, target="target-name", price=price, max_input_tokens=10_000
        )
        customer = await stack.customer()
        provider.queue(
            Behaviour(body=body, content_type=expect["http"]["content_type"], headers=expect["http"]["headers"])
        )
        answer = await call(stack, customer, model, kind, streamed=streamed, root=root)
        assert answer.status_code == 200, answer.text
        if expect["format"].endswith(".chat") and streamed:
            assert body.startswith(answer.content[:100])  # without the usage frame that nobody asked for
        else:
            assert answer.content == body
        assert "anthropic-organization-id" not in answer.headers
        [event] = await stack.events(customer.id, 1)
        wanted = {name: value for name, value in served.items() if value}
        assert event["usage"] == wanted
        assert (event["served_model"], event["model"], event["outcome"]) == (served_model, model, "complete")
        assert (event["streamed"], event["estimated"], event["provider"]) == (streamed, False, provider_name)
        [seen] = provider.seen
        assert seen.credential == "sk-upstream"
        assert customer.key not in json.dumps(seen.headers)


@pytest.mark.wire("1d.1", "2d.1", "3d.1")
async def test_what_is_not_served_is_told_in_the_dialect(stack: Stack) -> None:
    """401 and 404 in each dialect's own shape, where its SDKs look (wire.md 1d, 2d and 3d)."""
    stranger = Customer("nobody", "weir_junk", "none")
    openai = await call(stack, stranger, "m", "openai.chat", streamed=False)
    assert (openai.status_code, openai.json()["error"]["code"]) == (401, "invalid_api_key")
    anthropic = await call(stack, stranger, "m", "anthropic.messages", streamed=False)
    assert (anthropic.status_code, anthropic.json()["type"]) == (401, "error")
    assert anthropic.json()["error"]["type"] == "authentication_error"
    assert anthropic.json()["request_id"] == anthropic.headers["request-id"] == anthropic.headers["x-weir-request-id"]
    gemini = await call(stack, stranger, "m", "gemini.generate", streamed=False)
    assert (gemini.status_code, gemini.json()["error"]["code"]) == (401, 401)
    assert gemini.json()["error"]["status"] == "UNAUTHENTICATED"
    for answer in (openai, anthropic, gemini):
        assert answer.headers["x-weir-refusal"] == "invalid_api_key"


@pytest.mark.wire("1a.3")
@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/openai/v1/files", "openai"),
        ("/anthropic/v1/messages/batches", "anthropic"),
        ("/gemini/v1beta/cachedContents", "gemini"),
        ("/v1/fine_tuning/jobs", "openai"),
        ("/gemini/v1beta/models/m:predictLongRunning", "gemini"),
    ],
)
async def test_stored_objects_are_not_served_and_why(stack: Stack, path: str, shape: str) -> None:
    async with http() as client:
        answer = await client.post(stack.gateway + path, json={})
    assert (answer.status_code, answer.headers["x-weir-refusal"]) == (404, "unknown_path")
    error = answer.json()["error"]
    assert {"openai": "code" in error, "anthropic": answer.json().get("type") == "error", "gemini": "status" in error}[
        shape
    ]


@pytest.mark.wire("0.3")
async def test_a_model_is_served_in_its_providers_dialect_only(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        model = await stack.model(provider.url, upstream={"provider": "anthropic", "base_url": provider.url})
        customer = await stack.customer()
        answer = await call(stack, customer, model, "openai.chat", streamed=False)
        assert (answer.status_code, answer.headers["x-weir-refusal"]) == (404, "model_not_found")
        assert "anthropic" not in answer.json()["error"]["message"].split("dialect")[0].replace("openai", "")
        fine = await call(stack, customer, model, "anthropic.messages", streamed=False)
        assert fine.status_code == 200
        assert len(provider.seen) == 1


@pytest.mark.wire("0.2", "1a.4")
async def test_the_list_of_models_in_every_shape(stack: Stack) -> None:
    """Three dialects share one path at the bare root; headers tell them apart (wire.md 0.2)."""
    async with ScriptedProvider() as provider:
        names = {}
        for kind in ("openai", "anthropic", "gemini"):
            names[kind] = await stack.model(provider.url, upstream={"provider": kind, "base_url": provider.url})
        customer = await stack.customer(key={"models": sorted(names.values())})
        bearer, goog = {"authorization": f"Bearer {customer.key}"}, {"x-goog-api-key": customer.key}
        version = {"anthropic-version": "2026-10-21"}
        async with http(base_url=stack.gateway) as client:

            async def get(path: str, headers: dict[str, str]) -> Any:
                answer = await client.get(path, headers=headers)
                assert answer.status_code == 200, answer.text
                return answer.json()

            for path in ("/openai/v1/models", "/v1/models"):
                assert [m["id"] for m in (await get(path, bearer))["data"]] == [names["openai"]]
            for path in ("/anthropic/v1/models", "/v1/models"):
                assert [m["id"] for m in (await get(path, bearer | version))["data"]] == [names["anthropic"]]
            for path in (
                "/gemini/v1beta/models",
                "/v1/models",
                "/v1beta/models",
                f"/gemini/v1/models?key={customer.key}",
            ):
                found = await get(path, {} if "key=" in path else goog)
                assert [m["name"] for m in found["models"]] == [f"models/{names['gemini']}"]
            assert (await get(f"/gemini/v1beta/models/{names['gemini']}", goog))["name"] == f"models/{names['gemini']}"
            assert (await get(f"/openai/v1/models/{names['openai']}", bearer))["id"] == names["openai"]
            unknown = await client.get(f"/openai/v1/models/{uuid.uuid4().hex}", headers=bearer)
            assert (unknown.status_code, unknown.headers["x-weir-refusal"]) == (404, "model_not_found")
            own = await get("/weir/v1/models", bearer)
            assert sorted(m["id"] for m in own["data"]) == sorted(names.values())


@pytest.mark.wire("1a.6")
async def test_free_endpoints_cost_nothing_and_need_a_live_key(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        model = await stack.model(provider.url, upstream={"provider": "anthropic", "base_url": provider.url})
        customer = await stack.customer("0")
        async with http(base_url=stack.gateway) as client:
            answer = await client.post(
                "/anthropic/v1/messages/count_tokens",
                json={"model": model, "messages": [{"role": "user", "content": "one two three"}]},
                headers={"x-api-key": customer.key, "anthropic-version": "2023-06-01"},
            )
        assert (answer.status_code, answer.json()) == (200, {"input_tokens": 3})
        [event] = await stack.events(customer.id, 1)
        assert (event["charge_nanos"], event["endpoint"], event["end"]) == (0, "count_tokens", "settled")


async def test_the_lists_request_id_is_where_the_sdks_look(stack: Stack) -> None:
    """Of an answer and of a refusal: OpenAI's SDKs read `x-request-id`, Anthropic's `request-id` (wire.md 1d and 2d)."""
    customer = await stack.customer()
    async with http(base_url=stack.gateway) as client:
        for path, header in (("/openai/v1/models", "x-request-id"), ("/anthropic/v1/models", "request-id")):
            for key, status in ((customer.key, 200), ("weir_junk", 401)):
                answer = await client.get(path, headers={"authorization": f"Bearer {key}"})
                assert answer.status_code == status
                assert answer.headers[header] == answer.headers["x-weir-request-id"]


async def test_only_gemini_says_its_tier_in_a_header(stack: Stack) -> None:
    """Another provider that sends Gemini's header says nothing with it: the answer's own tier counts."""
    async with ScriptedProvider(Behaviour(headers={"x-gemini-service-tier": "priority"})) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        assert (await call(stack, customer, model, "openai.chat", streamed=False)).status_code == 200
        [event] = await stack.events(customer.id, 1)
        assert event["usage"].get("service_tier") != "priority"
