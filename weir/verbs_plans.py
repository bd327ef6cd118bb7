"""The verbs for what many accounts share: `weir plan`."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer

from weir.asking import (
    Concurrency,
    Json,
    PageCursor,
    PageLimit,
    PerMinute,
    TokensPerMinute,
    asked,
    given,
    show,
    show_page,
)
from weir.client import path
from weir.tables import Column, Row, lines

plan_app = typer.Typer(no_args_is_help=True, help="Plans: limits, free requests and markup that accounts share.")


class OnAbandoned(StrEnum):
    """What a request that its gateway lost is charged at least."""

    release = "release"
    charge_input = "charge_input"
    charge_hold = "charge_hold"


@plan_app.command("set")
def plan_set(
    name: str,
    free_requests: Annotated[
        int | None, typer.Option(help="of each account, in each UTC month; 0 if not given")
    ] = None,
    retention_days: Annotated[int | None, typer.Option(help="of single usage events; 90 if not given")] = None,
    markup: Annotated[str | None, typer.Option(help="a factor on every price, such as 1.2")] = None,
    on_abandoned: Annotated[OnAbandoned | None, typer.Option(help="release if not given")] = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrency: Concurrency = None,
    as_json: Json = False,
) -> None:
    """Set a plan, whole: what is not given goes back to its default. In force for all its accounts when this returns."""
    body = {
        "free_requests": free_requests,
        "retention_days": retention_days,
        "markup": markup,
        "on_abandoned": on_abandoned and on_abandoned.value,
        "limits": given(
            requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrency=concurrency
        ),
    }
    with asked() as api:
        show(api.call("PUT", path("plans", name), body=body), as_json, _plan_lines)


@plan_app.command("list")
def plan_list(limit: PageLimit = 100, cursor: PageCursor = None, as_json: Json = False) -> None:
    """List plans."""
    with asked() as api:
        found = api.call("GET", path("plans"), query={"limit": limit, "cursor": cursor})
    columns: list[Column] = [
        ("name", lambda p: p["name"]),
        ("free requests", lambda p: p["free_requests"]),
        ("markup", lambda p: p["markup"]),
        ("on abandoned", lambda p: p["on_abandoned"]),
        ("retention days", lambda p: p["retention_days"]),
        ("limits", lambda p: [f"{name}={value}" for name, value in p["limits"].items()]),
    ]
    show_page(found, as_json, columns, none="no plans yet; make one with: weir plan set NAME")


def _plan_lines(plan: Row) -> Iterable[str]:
    named = ("name", "free_requests", "markup", "on_abandoned", "retention_days")
    limits = [(name.replace("_", " "), value) for name, value in plan["limits"].items()]
    return lines([*((name.replace("_", " "), plan[name]) for name in named), *limits])
