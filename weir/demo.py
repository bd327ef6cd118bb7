"""The demo: a scripted provider, a model on it, an account with credit, and lines to paste. All through the admin API."""

import json
import sys
from typing import Any

import httpx2

from weir.home import Home

MODEL = "weir-demo"
CREDIT_USD = "25.00"


async def prepare(home: Home, admin_url: str, token: str, provider_url: str) -> str:
    """The demo account, its model and a new API key, which is returned; the last start's key is revoked."""
    headers = {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=f"{admin_url}/v1", headers=headers, timeout=10) as admin:
        known = home.remembered("demo.json")
        account = known.get("account")
        if account is None:
            made = await _ask(admin, "POST", "/accounts", {"name": "Demo"})
            account = made["id"]
        await _ask(
            admin,
            "POST",
            f"/accounts/{account}/grants",
            {"amount_usd": CREDIT_USD, "kind": "top_up", "reference": "demo credit"},
            key="demo-credit",
        )
        upstream = await _upstream(admin, known.get("upstream"), provider_url)
        price = {
            "input_per_million_usd": "2.00",
            "output_per_million_usd": "8.00",
            "cached_input_per_million_usd": "0.50",
        }
        target = {"upstream": "scripted-provider", "model": MODEL}
        model = {"upstreams": [target], "price": price, "max_output_tokens": 16_384, "max_input_tokens": 128_000}
        await _ask(admin, "PUT", f"/models/{MODEL}", model)
        key = await _ask(admin, "POST", f"/accounts/{account}/api-keys", {"name": "demo"})
        if "key" in known:
            await _ask(admin, "DELETE", f"/accounts/{account}/api-keys/{known['key']}")
        home.write("demo.json", json.dumps({"account": account, "upstream": upstream, "key": key["id"]}))
        return str(key["key"])


async def _upstream(admin: httpx2.AsyncClient, known: str | None, provider_url: str) -> str:
    base_url = f"{provider_url}/v1"
    if known is None:
        # Always the same request under the same key, so that a start which died half-way does not meet its own upstream.
        first = {"name": "scripted-provider", "provider": "openai", "credential": "sk-scripted"}
        made = await _ask(
            admin, "POST", "/upstreams", {**first, "base_url": "http://127.0.0.1:9/v1"}, key="demo-upstream"
        )
        known = str(made["id"])
    await _ask(admin, "PATCH", f"/upstreams/{known}", {"base_url": base_url})
    return known


async def _ask(admin: httpx2.AsyncClient, method: str, path: str, body: Any = None, *, key: str = "") -> dict[str, Any]:
    headers = {"idempotency-key": key} if key else {}
    response = await admin.request(method, path, json=body, headers=headers)
    if response.status_code >= 400:
        raise RuntimeError(f"the demo could not be set up: {method} {path} answered {response.status_code}")
    return dict(response.json()) if response.content else {}


def lines(gateway_url: str, api_key: str) -> str:
    """What to paste: curl and the OpenAI SDK, whole and streamed."""
    base = f"{gateway_url}/openai/v1"
    question = [{"role": "user", "content": "Hello"}]
    key_header, type_header = f"-H 'Authorization: Bearer {api_key}'", "-H 'Content-Type: application/json'"

    def curl(flags: str, **more: Any) -> str:
        body = json.dumps({"model": MODEL, "messages": question, **more})
        return f"curl -sS{flags} {base}/chat/completions {key_header} {type_header} -d '{body}'"

    def sdk(arguments: str, use: str) -> str:
        client = f'weir = OpenAI(base_url="{base}", api_key="{api_key}")'
        ask = f'weir.chat.completions.create(model="{MODEL}", messages={json.dumps(question)}{arguments})'
        return f"{sys.executable} -c 'from openai import OpenAI; {client}; {use.format(ask=ask)}'"

    pieces = '[print(c.choices[0].delta.content or "", end="", flush=True) for c in {ask}]; print()'
    return "\n".join(
        (
            "With curl, whole and streamed:",
            f"  {curl('')}",
            f"  {curl('N', stream=True)}",
            "",
            "With the OpenAI SDK, whole and streamed:",
            f"  {sdk('', 'print({ask}.choices[0].message.content)')}",
            f"  {sdk(', stream=True', pieces)}",
            "",
            "What it cost:",
            f"  curl -sS {gateway_url}/weir/v1/balance -H 'Authorization: Bearer {api_key}'",
        )
    )
