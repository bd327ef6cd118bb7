"""The verbs that say what is served, at which price, and where: `weir model`, `weir upstream`."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from weir.asking import Concurrency, Json, Once, PerMinute, TokensPerMinute, Usd, asked, given, show
from weir.client import path
from weir.price_lines import price_table
from weir.tables import Row, lines

model_app = typer.Typer(no_args_is_help=True, help="Models and their prices.")
upstream_app = typer.Typer(no_args_is_help=True, help="Provider endpoints and their credentials.")


@model_app.command("add")
def model_add(
    name: str,
    upstream: Annotated[
        list[str], typer.Option(help="NAME, or NAME=MODEL if it is called otherwise there; repeatable")
    ],
    max_output_tokens: Annotated[int, typer.Option()],
    book: Annotated[bool, typer.Option("--book", help="at the price book's price, by its exact name there")] = False,
    input_price: Annotated[str | None, typer.Option("--input", help="USD per million input tokens")] = None,
    output_price: Annotated[str | None, typer.Option("--output", help="USD per million output tokens")] = None,
    max_input_tokens: Annotated[
        int | None, typer.Option(help="the context window; the book's, or 1,000,000, if not given")
    ] = None,
    cached_input: Annotated[str | None, typer.Option(help="USD per million cached input tokens")] = None,
    per_request: Usd = None,
    rate: Annotated[list[str] | None, typer.Option(help="any other, such as cache_write_5m=3.75; repeatable")] = None,
    markup: Annotated[str | None, typer.Option(help="a factor on every price, such as 1.2")] = None,
    reasons: Annotated[bool, typer.Option("--reasons", help="the model thinks before it answers")] = False,
    fallback: Annotated[
        list[str] | None, typer.Option(help="a model that serves in its place when it cannot be served; repeatable")
    ] = None,
    queue_size: Annotated[
        int | None, typer.Option(help="requests that may wait while every upstream is at its limit; 0 if not given")
    ] = None,
    queue_timeout: Annotated[float | None, typer.Option(help="seconds that each may wait; 10 if not given")] = None,
    as_json: Json = False,
) -> None:
    """Add a model with its price, or replace it."""
    price = given(
        **{
            "input_per_million_usd": input_price,
            "output_per_million_usd": output_price,
            "cached_input_per_million_usd": cached_input,
            "per_request_usd": per_request,
            **{f"{kind}_per_million_usd": amount for kind, amount in map(_pair, rate or ())},
        }
    )
    if book == bool(price):
        raise typer.BadParameter("give either --book, or the price: --input and --output")
    body = {
        "upstreams": [{"upstream": at, "model": there or name} for at, there in map(_pair, upstream)],
        "price": "book" if book else price,
        "max_output_tokens": max_output_tokens,
        "max_input_tokens": max_input_tokens,
        "markup": markup,
        "reasons": reasons,
        "fallbacks": fallback,
        "queue_size": queue_size,
        "queue_timeout_s": queue_timeout,
    }
    with asked() as api:
        show(api.call("PUT", path("models", name), body=body), as_json, _model_lines)


@upstream_app.command("add")
def upstream_add(
    name: str,
    provider: Annotated[str, typer.Option(help="openai, anthropic, gemini, xai or openai_compatible")],
    base_url: Annotated[str, typer.Option(help="such as https://api.openai.com/v1")],
    credential_file: Annotated[
        Path | None, typer.Option(help="where the credential lies; else it is asked for")
    ] = None,
    weight: int | None = None,
    priority: int | None = None,
    on_client_left: Annotated[str | None, typer.Option(help="drain or abort")] = None,
    first_byte_timeout: Annotated[
        float | None, typer.Option(help="seconds until another upstream is asked; 600 if not given")
    ] = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrency: Concurrency = None,
    idempotency_key: Once = None,
    as_json: Json = False,
) -> None:
    """Add a provider endpoint. The credential comes from a file, a prompt or stdin, so no process list shows it."""
    body = {
        "name": name,
        "provider": provider,
        "base_url": base_url,
        "credential": _credential(credential_file),
        "weight": weight,
        "priority": priority,
        "on_client_left": on_client_left,
        "first_byte_timeout_s": first_byte_timeout,
        "limits": given(
            requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrency=concurrency
        ),
    }
    with asked() as api:
        made = api.call("POST", path("upstreams"), body=body, idempotency_key=idempotency_key)
    show(made, as_json, _upstream_lines)


@upstream_app.command("test")
def upstream_test(name: str, as_json: Json = False) -> None:
    """Send the smallest real request to an upstream; status 1 if it does not answer well."""
    with asked() as api:
        came = api.call("POST", path("upstreams", name, "test"))
    show(came, as_json, _test_lines)
    if not came["ok"]:
        raise typer.Exit(1)


def _upstream_lines(up: Row) -> Iterable[str]:
    fields = ("id", "name", "provider", "base_url", "weight", "priority", "on_client_left")
    limits = [(name, number) for name, number in up["limits"].items()]
    yield from lines([(field.replace("_", " "), value) for field, value in [*((f, up[f]) for f in fields), *limits]])


def _test_lines(came: Row) -> Iterable[str]:
    head = [("upstream", came["upstream"]), ("model", f"{came['model']} (there: {came['asked_as']})")]
    if "problem" in came:
        yield from lines([*head, ("problem", came["problem"])])
        return
    found = [("status", came["status"]), ("latency", f"{came['latency_ms']} ms"), ("TLS", came["tls"] or "none")]
    counted = ", ".join(f"{key} {value}" for key, value in (came["usage"] or {}).items())
    yield from lines([*head, *found, ("usage", counted or "not reported")])
    if came["quota"]:
        yield ""
        yield from lines(list(came["quota"].items()))
    yield ""
    yield from price_table(came["price"])


def _model_lines(model: Row) -> Iterable[str]:
    at = [f"{target['upstream']} ({target['model']})" for target in model["upstreams"]]
    rest = [
        ("fallbacks", model["fallbacks"] or "none"),
        ("markup", model["markup"]),
        ("price version", model["price_version"]),
    ]
    yield from lines([("name", model["name"]), ("upstreams", at), *rest])
    yield ""
    yield from price_table(model["price"])


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _credential(path: Path | None) -> str:
    try:
        if path is not None:
            return path.read_text().strip()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from None
    if sys.stdin.isatty():
        return str(typer.prompt("credential", hide_input=True)).strip()
    return sys.stdin.readline().strip()
