"""The main job: the real OpenAI SDK through the gateway to the ledger, to the nano-dollar."""

import asyncio
from types import SimpleNamespace

import openai
import pytest

from bench.provider import Behaviour, ScriptedProvider
from ledger.money import round_up_to_nanos
from tests.stack import Stack, eventually, http

PROMPT = [{"role": "user", "content": "Hello there, how are you?"}]
INPUT_PICOS, OUTPUT_PICOS, CACHED_PICOS = 2_500_000, 10_000_000, 1_250_000


def expected_nanos(uncached: int, output: int, cached: int = 0) -> int:
    """What the price in tests/stack.py makes of these tokens, reckoned apart from the product's own pricing."""
    exact = uncached * INPUT_PICOS + output * OUTPUT_PICOS + cached * CACHED_PICOS
    return -(-exact // 1000)


def test_the_reckoning_here_is_the_products() -> None:
    assert round_up_to_nanos(7 * INPUT_PICOS + 5 * OUTPUT_PICOS) == expected_nanos(7, 5)


async def check_books(stack: Stack, account: str, *, uncached: int, output: int, streamed: bool, model: str) -> None:
    """The event, the charge and the balance of an account's only request."""
    [event] = await stack.events(account, 1)
    charge = expected_nanos(uncached, output)
    assert event["charge_nanos"] == charge
    assert event["usage"]["input_uncached"] == uncached
    assert event["usage"]["output"] == output
    assert (event["end"], event["outcome"], event["status"]) == ("settled", "complete", 200)
    assert (event["streamed"], event["estimated"], event["shortfall_nanos"]) == (streamed, False, 0)
    assert (event["model"], event["served_model"], event["dialect"]) == (model, model, "openai")
    assert event["spent_after_nanos"] == charge
    balance = await stack.balance(account)
    assert balance["spent_nanos"] == charge
    assert balance["held_nanos"] == 0
    assert balance["available_nanos"] == balance["credited_nanos"] - charge
    assert (await stack.ask("GET", f"/usage/{event['request_id']}"))["charge_nanos"] == charge


@pytest.mark.wire("1b.3", "5.2")
@pytest.mark.parametrize("streamed", [False, True])
async def test_sync_sdk(stack: Stack, streamed: bool) -> None:
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()

        def call() -> str:
            with openai.OpenAI(base_url=stack.base_url, api_key=customer.key, max_retries=0) as client:
                if not streamed:
                    answer = client.chat.completions.create(model=model, messages=PROMPT)  # type: ignore[arg-type]
                    return answer.choices[0].message.content or ""
                stream = client.chat.completions.create(model=model, messages=PROMPT, stream=True)  # type: ignore[arg-type]
                assert isinstance(stream, openai.Stream)
                chunks = list(stream)
                assert all(len(chunk.choices) == 1 for chunk in chunks), "the usage frame was not asked for"
                return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

        assert await asyncio.to_thread(call) == "Hello from the scripted provider."
        await check_books(stack, customer.id, uncached=5, output=5, streamed=streamed, model=model)
        assert provider.stats.billed_requests == 1


@pytest.mark.wire("1b.3")
@pytest.mark.parametrize("asked", [None, True, False])
async def test_async_sdk_streamed(stack: Stack, asked: bool | None) -> None:
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        options = {} if asked is None else {"stream_options": {"include_usage": asked}}
        async with openai.AsyncOpenAI(base_url=stack.base_url, api_key=customer.key, max_retries=0) as client:
            stream = await client.chat.completions.create(model=model, messages=PROMPT, stream=True, **options)  # type: ignore[call-overload]
            chunks = [chunk async for chunk in stream]
        assert (
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            == "Hello from the scripted provider."
        )
        assert any(chunk.usage for chunk in chunks) is bool(asked)
        await check_books(stack, customer.id, uncached=5, output=5, streamed=True, model=model)


async def test_async_sdk_whole(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        async with openai.AsyncOpenAI(base_url=stack.base_url, api_key=customer.key, max_retries=0) as client:
            raw = await client.chat.completions.with_raw_response.create(model=model, messages=PROMPT)  # type: ignore[arg-type]
        answer = raw.parse()
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 5)
        rid = raw.headers["x-weir-request-id"]
        [event] = await stack.events(customer.id, 1)
        assert event["request_id"] == rid
        assert event["api_key"] == customer.key_id
        await check_books(stack, customer.id, uncached=5, output=5, streamed=False, model=model)


@pytest.mark.wire("1a.2", "5.4", "5.6", "6.2")
async def test_bytes_pass_as_they_are(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent arrives byte for byte where nothing has to change; so does the answer."""
    # The provider's clock stands: a second may begin between its two answers.
    monkeypatch.setattr("bench.provider.answers.openai.time", SimpleNamespace(time=lambda: 1_741_569_952.0))
    body = (
        b'{ "model":"%s" ,"messages":[{"role":"user","content":"\xc3\xa9 \\u00e9 1.10"}],"max_tokens": 16,"seed":1e2 }'
    )
    async with ScriptedProvider(record_bodies=True) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        sent = body % model.encode()
        headers = {
            "authorization": f"Bearer {customer.key}",
            "content-type": "application/json",
            "cookie": "session=1",
            "x-forwarded-for": "10.0.0.1",
            "openai-organization": "org-other",
            "user-agent": "their-own/1",
        }
        async with http() as client:
            through = await client.post(f"{stack.base_url}/chat/completions", content=sent, headers=headers)
            direct = await client.post(
                f"{provider.url}/v1/chat/completions", content=sent, headers={**headers, "authorization": "Bearer x"}
            )
        assert through.status_code == 200, through.text
        assert through.content.replace(b"chatcmpl-1", b"chatcmpl-2") == direct.content
        seen = provider.seen[0]
        assert seen.body == sent
        names = {name.lower() for name, _ in seen.headers}
        assert not names & {"cookie", "x-forwarded-for", "openai-organization"}
        values = {name.lower(): value for name, value in seen.headers}
        assert values["authorization"] == "Bearer sk-upstream"
        assert values["user-agent"] == "their-own/1"
        assert values["accept-encoding"] == "identity"


@pytest.mark.wire("5.4", "8.3")
async def test_the_model_name_and_a_cap_are_spliced_in(stack: Stack) -> None:
    """The provider's name of the model, and for a caller without a cap one that the balance pays for, announced."""
    async with ScriptedProvider(record_bodies=True) as provider:
        model = await stack.model(provider.url, target="gpt-inner", max_output_tokens=100_000)
        customer = await stack.customer("2.00")  # 10 % of it pays for 16,384 tokens but not for 32,768
        body = f'{{"messages": [{{"role": "user", "content": "model"}}], "model": "{model}", "temperature": 0.10}}'
        async with http() as client:
            answer = await client.post(
                f"{stack.base_url}/chat/completions",
                content=body,
                headers={"authorization": f"Bearer {customer.key}", "content-type": "application/json"},
            )
        assert answer.headers["x-weir-output-cap"] == "16384"
        assert provider.seen[0].body == (
            b'{"messages": [{"role": "user", "content": "model"}], "model": "gpt-inner", "temperature": 0.10'
            b',"max_completion_tokens":16384}'
        )
        [event] = await stack.events(customer.id, 1)
        assert (event["model"], event["served_model"]) == (model, "gpt-inner")


@pytest.mark.wire("0.1")
async def test_a_bare_root_is_openais(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        async with openai.AsyncOpenAI(base_url=f"{stack.gateway}/v1", api_key=customer.key, max_retries=0) as client:
            answer = await client.chat.completions.create(model=model, messages=PROMPT)  # type: ignore[arg-type]
        assert answer.choices[0].finish_reason == "stop"


async def test_callers_see_their_balance_and_models(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer("3.50")
        async with http(headers={"authorization": f"Bearer {customer.key}"}) as client:
            balance = (await client.get(f"{stack.gateway}/weir/v1/balance")).json()
            models = (await client.get(f"{stack.gateway}/weir/v1/models")).json()
    assert balance["available_nanos"] == balance["credited_nanos"] == 3_500_000_000
    assert balance["available_usd"] == "3.50"
    assert model in {item["id"] for item in models["data"]}


@pytest.mark.wire("1b.1", "1b.6")
async def test_cached_input_has_its_own_price(stack: Stack) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "total_tokens": 107,
        "prompt_tokens_details": {"cached_tokens": 60},
    }
    async with ScriptedProvider(Behaviour(usage=usage)) as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        async with openai.AsyncOpenAI(base_url=stack.base_url, api_key=customer.key, max_retries=0) as client:
            await client.chat.completions.create(model=model, messages=PROMPT)  # type: ignore[arg-type]
        [event] = await stack.events(customer.id, 1)
    assert event["usage"] == {"input_uncached": 40, "cache_read": 60, "output": 7, "service_tier": "default"}
    assert event["charge_nanos"] == expected_nanos(40, 7, cached=60)


async def test_one_scrape_has_everything(stack: Stack) -> None:
    async with ScriptedProvider() as provider:
        model, customer = await stack.model(provider.url), await stack.customer()
        async with openai.AsyncOpenAI(base_url=stack.base_url, api_key=customer.key, max_retries=0) as client:
            await client.chat.completions.create(model=model, messages=PROMPT)  # type: ignore[arg-type]
        # A worker hands over one metric after the other, and a scrape may come in between.
        counted = (
            f'weir_requests_total{{dialect="openai",endpoint="chat.completions",model="{model}",outcome="complete"}} 1.0',
            f'weir_tokens_total{{bucket="output",model="{model}",provider="openai"}} 5.0',
            f'weir_charge_nanos_total{{model="{model}",provider="openai"}} {float(expected_nanos(5, 5))}',
        )
        text = await eventually(stack.metrics, lambda found: all(line in found for line in counted))
    for name in (
        "weir_request_seconds_count",
        "weir_overhead_seconds_count",
        "weir_ttft_seconds_count",
        "weir_stream_chunks_total",
        "weir_open_streams",
        "weir_holds ",
        "weir_holds_swept_total",
        "weir_script_seconds_count",
        "weir_settles_retained",
        "weir_fenced_total",
        "weir_ledger_lag_seconds",
        "weir_ledger_backlog",
        "weir_ledger_gaps_total",
        "weir_conservation_error_nanos",
        "weir_dead_events",
        "weir_config_version",
    ):
        assert name in text, name
    assert customer.id not in text
    assert customer.key_id not in text


async def test_the_books_balance(stack: Stack) -> None:
    assert stack.audit()["agrees"]
