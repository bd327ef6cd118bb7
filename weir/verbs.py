"""The operator's daily verbs, each one call of the admin API. `mount` puts them on the `weir` command."""

import uuid
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer

from ledger.money import format_usd
from weir.asking import (
    Concurrency,
    Json,
    Once,
    PageCursor,
    PageLimit,
    PerMinute,
    TokensPerMinute,
    Usd,
    asked,
    given,
    show,
    show_page,
)
from weir.client import path
from weir.tables import Column, Row, lines, table, usd
from weir.verbs_catalogue import model_app, upstream_app
from weir.verbs_plans import plan_app
from weir.verbs_prices import prices_app

account_app = typer.Typer(no_args_is_help=True, help="Accounts: who pays.")
key_app = typer.Typer(no_args_is_help=True, help="API keys of an account.")
credit_app = typer.Typer(no_args_is_help=True, help="Money in.")


def mount(app: typer.Typer) -> None:
    """Add every verb to the command."""
    for name, part in (
        ("account", account_app),
        ("key", key_app),
        ("credit", credit_app),
        ("plan", plan_app),
        ("model", model_app),
        ("upstream", upstream_app),
        ("prices", prices_app),
    ):
        app.add_typer(part, name=name)
    app.command("usage")(usage)


class Kind(StrEnum):
    """Why money comes in."""

    top_up = "top_up"
    bonus = "bonus"
    refund = "refund"
    correction = "correction"


class By(StrEnum):
    """What usage is summed over."""

    day = "day"
    model = "model"
    key = "key"


AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="the account's id (acct_...)")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="the key's id, not its secret")]


# Accounts


@account_app.command("create")
def account_create(
    name: str,
    email: str | None = None,
    plan: Annotated[str | None, typer.Option(help="the name of a plan; weir plan list shows them")] = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrency: Concurrency = None,
    idempotency_key: Once = None,
    as_json: Json = False,
) -> None:
    """Open an account. It starts without credit."""
    limits = given(
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrency=concurrency
    )
    body = {"name": name, "email": email, "plan": plan, "limits": limits}
    with asked() as api:
        made = api.call("POST", path("accounts"), body=body, idempotency_key=idempotency_key)
    show(made, as_json, _account_lines)


@account_app.command("show")
def accountshow(account: AccountId, as_json: Json = False) -> None:
    """Show an account and its balance."""
    with asked() as api:
        show(api.call("GET", path("accounts", account)), as_json, _account_lines)


@account_app.command("list")
def account_list(limit: PageLimit = 100, cursor: PageCursor = None, as_json: Json = False) -> None:
    """List accounts with their balances."""
    with asked() as api:
        found = api.call("GET", path("accounts"), query={"limit": limit, "cursor": cursor})
    columns: list[Column] = [
        ("id", lambda a: a["id"]),
        ("name", lambda a: a["name"]),
        ("status", lambda a: a["status"]),
        ("available", lambda a: usd(a["balance"]["available_usd"])),
        ("held", lambda a: usd(a["balance"]["held_usd"])),
        ("spent", lambda a: usd(a["balance"]["spent_usd"])),
        ("credited", lambda a: usd(a["balance"]["credited_usd"])),
    ]
    show_page(found, as_json, columns, none="no accounts yet; make one with: weir account create NAME")


@account_app.command("close")
def account_close(account: AccountId, as_json: Json = False) -> None:
    """Close an account for good; refused while requests are in flight."""
    with asked() as api:
        show(api.call("DELETE", path("accounts", account)), as_json, _account_lines)


# API keys


@key_app.command("issue")
def key_issue(
    account: AccountId,
    name: Annotated[str, typer.Option(help="what the key is for")] = "default",
    model: Annotated[list[str] | None, typer.Option(help="allow only this model; repeat for more")] = None,
    endpoint: Annotated[list[str] | None, typer.Option(help="allow only this endpoint; repeat for more")] = None,
    network: Annotated[list[str] | None, typer.Option(help="allow only this network; repeat for more")] = None,
    expires_at: Annotated[str | None, typer.Option(help="RFC 3339, such as 2027-01-01T00:00:00Z")] = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrency: Concurrency = None,
    daily_cap: Usd = None,
    monthly_cap: Usd = None,
    idempotency_key: Once = None,
    as_json: Json = False,
) -> None:
    """Issue an API key. It is shown this once."""
    body = {
        "name": name,
        "models": model,
        "endpoints": endpoint,
        "networks": network,
        "expires_at": expires_at,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrency": concurrency,
        "daily_cap_usd": daily_cap,
        "monthly_cap_usd": monthly_cap,
    }
    with asked() as api:
        made = api.call("POST", path("accounts", account, "api-keys"), body=body, idempotency_key=idempotency_key)
    show(made, as_json, _key_lines)


@key_app.command("list")
def key_list(account: AccountId, limit: PageLimit = 100, cursor: PageCursor = None, as_json: Json = False) -> None:
    """List an account's keys, without their secrets."""
    with asked() as api:
        found = api.call("GET", path("accounts", account, "api-keys"), query={"limit": limit, "cursor": cursor})
    columns: list[Column] = [
        ("id", lambda k: k["id"]),
        ("name", lambda k: k["name"]),
        ("status", lambda k: k["status"]),
        ("expires", lambda k: k["expires_at"]),
        ("models", lambda k: k["models"] or "all"),
        ("daily cap", lambda k: usd(k["daily_cap_usd"])),
        ("monthly cap", lambda k: usd(k["monthly_cap_usd"])),
        ("created", lambda k: k["created_at"]),
    ]
    show_page(found, as_json, columns, none=f"no keys yet; issue one with: weir key issue {account}")


@key_app.command("rotate")
def key_rotate(
    account: AccountId,
    key_id: KeyId,
    grace_seconds: Annotated[int, typer.Option(help="how long the old key still works; 0 ends it at once")] = 86_400,
    idempotency_key: Once = None,
    as_json: Json = False,
) -> None:
    """Replace a key by a new one with the same limits and the same spend; the old one ends after the grace."""
    where = path("accounts", account, "api-keys", key_id, "rotate")
    with asked() as api:
        made = api.call("POST", where, body={"grace_seconds": grace_seconds}, idempotency_key=idempotency_key)
    show(made, as_json, _key_lines)


@key_app.command("revoke")
def key_revoke(account: AccountId, key_id: KeyId, as_json: Json = False) -> None:
    """End a key now. When this returns, no gateway admits it any more."""
    with asked() as api:
        show(api.call("DELETE", path("accounts", account, "api-keys", key_id)), as_json, _key_lines)


# Credit, usage


@credit_app.command("add")
def credit_add(
    account: AccountId,
    amount: Annotated[str, typer.Argument(metavar="USD", help="such as 12.50")],
    kind: Kind = Kind.top_up,
    reference: Annotated[str | None, typer.Option(help="your own, such as an invoice number")] = None,
    idempotency_key: Once = None,
    as_json: Json = False,
) -> None:
    """Add credit to an account."""
    body = {"amount_usd": amount, "kind": kind.value, "reference": reference}
    key = idempotency_key or str(uuid.uuid4())
    with asked() as api:
        show(
            api.call("POST", path("accounts", account, "grants"), body=body, idempotency_key=key), as_json, _grant_lines
        )


def usage(
    account: Annotated[str | None, typer.Argument(metavar="ACCOUNT", help="the account's id")] = None,
    request: Annotated[str | None, typer.Option(help="every event of this one request instead")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="a date or an RFC 3339 time, included")] = None,
    to: Annotated[str | None, typer.Option(help="likewise, not included")] = None,
    model: Annotated[str | None, typer.Option(help="of this model only")] = None,
    key: Annotated[str | None, typer.Option(help="of this key id only")] = None,
    by: Annotated[By | None, typer.Option(help="sums instead of single requests")] = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
    as_json: Json = False,
) -> None:
    """Show what an account used and what it cost."""
    with asked() as api:
        if request is not None and account is None:
            found = api.call("GET", path("usage", request))
            show(found, as_json, lambda answer: table(answer["events"], _EVENT, none=""))
            return
        if account is None or request is not None:
            raise typer.BadParameter("give an account, or --request with a request id")
        query = {"from": from_, "to": to, "model": model, "key": key, "limit": limit, "cursor": cursor}
        if by is None:
            found = api.call("GET", path("accounts", account, "usage"), query=query)
            show_page(found, as_json, _EVENT, none="no usage")
            return
        found = api.call("GET", path("accounts", account, "usage", "summary"), query={**query, "by": by.value})
    show_page(found, as_json, [(by.value, lambda row: row[by.value]), *_SUMS], none="no usage")


# What they print


def _account_lines(account: Row) -> Iterable[str]:
    balance = account["balance"]
    words = ("available", "held", "spent", "credited")
    limits = [(name.replace("_", " "), value) for name, value in account["limits"].items()]
    named = [(name, account[name]) for name in ("id", "name", "email", "plan", "status")]
    return lines([*named, *((word, usd(balance[f"{word}_usd"])) for word in words), *limits])


def _key_lines(key: Row) -> Iterable[str]:
    yield from lines(
        [(name, key[name]) for name in ("id", "name", "account", "status")] + [("expires", key["expires_at"])]
    )
    if key.get("key"):
        yield from ("", f"key  {key['key']}", "This is the only time that the key is shown.")
    elif "key" in key:
        yield "The key was shown when it was made; if it is lost, rotate it."


def _grant_lines(grant: Row) -> Iterable[str]:
    return lines([("account", grant["account"]), ("amount", usd(grant["amount_usd"])), ("status", grant["status"])])


_EVENT: list[Column] = [
    ("at", lambda e: e["at"]),
    ("request", lambda e: e["request_id"]),
    ("model", lambda e: e["model"]),
    ("end", lambda e: e["end"]),
    ("outcome", lambda e: e["outcome"]),
    ("usage", lambda e: " ".join(f"{name}={count}" for name, count in e["usage"].items())),
    ("charge", lambda e: usd(format_usd(e["charge_nanos"]))),
]
_SUMS: list[Column] = [
    ("requests", lambda s: s["requests"]),
    ("input tokens", lambda s: s["input_tokens"]),
    ("output tokens", lambda s: s["output_tokens"]),
    ("charge", lambda s: usd(s["charge_usd"])),
    ("shortfall", lambda s: usd(s["shortfall_usd"])),
]
