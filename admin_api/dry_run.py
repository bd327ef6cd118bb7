"""A dry run of an upstream: the smallest real request, and what came of it. It costs the operator a few tokens.

What the provider wrote is not shown and not kept: only the status, times, the TLS version, the account's remaining quota
as the provider's headers tell it, and the usage with its price.
"""

import ssl
import time
from typing import Any, NamedTuple

import httpx2

from ledger.addresses import checked, upstream_url
from ledger.cold import Document
from ledger.settings import Settings

_WITHIN_S = 30.0
_HELLO = "Hi"
_FEW = 16  # some models refuse a smaller cap
_QUOTA = ("x-ratelimit-", "anthropic-ratelimit-", "retry-after")


class Small(NamedTuple):
    """The smallest request of a provider."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def smallest(provider: str, model: str, credential: str) -> Small:
    """One word in, a few tokens out."""
    said = [{"role": "user", "content": _HELLO}]
    if provider == "anthropic":
        headers = {"x-api-key": credential, "anthropic-version": "2023-06-01"}
        return Small("/v1/messages", headers, {"model": model, "max_tokens": _FEW, "messages": said})
    if provider == "gemini":
        body: dict[str, Any] = {
            "contents": [{"parts": [{"text": _HELLO}]}],
            "generationConfig": {"maxOutputTokens": _FEW},
        }
        return Small(f"/v1beta/models/{model}:generateContent", {"x-goog-api-key": credential}, body)
    body = {"model": model, "messages": said, "max_completion_tokens": _FEW}
    return Small("/chat/completions", {"authorization": f"Bearer {credential}"}, body)


async def ask(settings: Settings, upstream: Document, model: str, credential: str) -> dict[str, Any]:
    """What the upstream did: `ok`, and either `status` and `latency_ms`, or `problem` in a few words."""
    small = smallest(upstream["provider"], model, credential)
    url = upstream_url(upstream["provider"], upstream["base_url"], small.path)
    context = ssl.create_default_context()
    if settings.upstream_ca_file:
        context.load_verify_locations(settings.upstream_ca_file)
    began = time.perf_counter()
    try:
        if not settings.allow_private_upstreams:
            await checked(url)
        async with httpx2.AsyncClient(verify=context, timeout=_WITHIN_S, trust_env=False) as client:
            answer = await client.post(url, json=small.body, headers=small.headers)
    except (httpx2.HTTPError, OSError) as error:
        return {"ok": False, "problem": _in_words(error)}
    return {
        "ok": answer.status_code < 300,
        "status": answer.status_code,
        "latency_ms": round((time.perf_counter() - began) * 1000),
        "tls": _tls(answer),
        "quota": {name: value for name, value in answer.headers.items() if name.startswith(_QUOTA)},
        "usage": _usage(answer),
    }


def _in_words(error: Exception) -> str:
    if isinstance(error, httpx2.ConnectTimeout | httpx2.ReadTimeout):
        return f"no answer within {_WITHIN_S:g} s"
    if "certificate" in str(error).lower():
        return "its certificate is not trusted; see WEIR_UPSTREAM_CA_FILE"
    if isinstance(error, httpx2.ConnectError | OSError):
        return "no connection: the name is unknown, nothing listens there, or the address is not allowed"
    return "the connection broke off"


def _tls(answer: httpx2.Response) -> str | None:
    stream = answer.extensions.get("network_stream")
    found = stream.get_extra_info("ssl_object") if stream is not None else None
    return found.version() if found is not None else None


def _usage(answer: httpx2.Response) -> dict[str, Any] | None:
    """The provider's own count, numbers only: it is what the operator is billed for."""
    try:
        body = answer.json()
    except ValueError:
        return None
    found = (body.get("usage") or body.get("usageMetadata")) if isinstance(body, dict) else None
    return {name: n for name, n in found.items() if isinstance(n, int)} if isinstance(found, dict) else None
