"""Weir: an account with limits and credit, two upstreams, two models at their price, and one key."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contest import MODEL, Contestant, Upstreams, Way
from bench.stack import Stack, running
from ledger import __version__, compiled

NAME = "Weir"
INPUT_NANOS = 2_000  # a token; $2 a million
OUTPUT_NANOS = 8_000
GRANT_USD = "1000000.00"
LIMITS = {"requests_per_minute": 10**9, "tokens_per_minute": 10**9, "concurrency": 10_000}


@contextmanager
def run(folder: Path, upstreams: Upstreams) -> Iterator[tuple[Contestant, Stack]]:
    """One worker, metering on, every write on disk before it is answered."""
    with running(folder) as stack:
        key = _furnish(stack, upstreams)
        url = f"{stack.gateway_url}/openai/v1/chat/completions"
        plain, stream = Way(url, key), Way(url, key, f"{MODEL}-stream")
        version = f"{__version__} ({'compiled' if compiled.modules() else 'interpreted'})"
        yield Contestant(NAME, version, plain, stream, stack.workers()), stack


def new_account(stack: Stack, name: str) -> str:
    """An account with limits that are checked and never reached."""
    account = str(stack.post("/accounts", {"name": name, "limits": LIMITS})["id"])
    stack.post(f"/accounts/{account}/grants", {"amount_usd": GRANT_USD, "kind": "top_up"})
    return account


def _furnish(stack: Stack, upstreams: Upstreams) -> str:
    for name, url, model in (("plain", upstreams.plain, MODEL), ("stream", upstreams.stream, f"{MODEL}-stream")):
        upstream = {"name": name, "provider": "openai_compatible", "base_url": f"{url}/v1", "credential": "sk-bench"}
        stack.post("/upstreams", upstream)
        terms = {
            "upstreams": [{"upstream": name, "model": MODEL}],
            "price": {
                "input_per_million_usd": _per_million_usd(INPUT_NANOS),
                "output_per_million_usd": _per_million_usd(OUTPUT_NANOS),
            },
            "max_output_tokens": 32_768,
            "max_input_tokens": 1_000_000,
        }
        stack.put(f"/models/{model}", terms)
    account = new_account(stack, "bench")
    return str(stack.post(f"/accounts/{account}/api-keys", {"name": "bench"})["key"])


def _per_million_usd(nanos_per_token: int) -> str:
    return f"{nanos_per_token / 1000:.2f}"
