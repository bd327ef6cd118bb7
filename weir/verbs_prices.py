"""The verbs for the price book: `weir prices import`, `diff`, `show` and `apply`."""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from weir.asking import Json, asked, show
from weir.client import REFUSED, Client, Failure, path
from weir.price_lines import APPLIED, CHANGES, change_rows, price_table
from weir.tables import Row, lines, table

prices_app = typer.Typer(no_args_is_help=True, help="The price book: what providers charge.")

_PAGE = 500
_OUTSIDE = ("provider", "version", "source", "imported_at")


class Provider(StrEnum):
    """Whose prices there are to import."""

    openai = "openai"
    anthropic = "anthropic"
    gemini = "gemini"
    xai = "xai"


Providers = Annotated[list[Provider] | None, typer.Option("--provider", help="of this one only; repeatable")]
Models = Annotated[list[str] | None, typer.Option("--model", help="this one only, by its exact name; repeatable")]
Markup = Annotated[str | None, typer.Option(help="a factor on every price, such as 1.2; as it was if not given")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would change, and change nothing")]


@prices_app.command("import")
def prices_import(
    provider: Providers = None,
    model: Models = None,
    markup: Markup = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put the prices of the installed genai-prices into the book. What models cost changes by `weir prices apply`."""
    with asked() as api:
        parts = _parts(api, provider, model, markup)
        answers = [_send(api, part, write=not dry_run) for part in parts]
    show(answers, as_json, _changes)
    for part, answer in zip(parts, answers, strict=True):
        _tell(part, answer, dry_run=dry_run)


@prices_app.command("diff")
def prices_diff(provider: Providers = None, model: Models = None, markup: Markup = None, as_json: Json = False) -> None:
    """Show what an import would change, for which model, and change nothing."""
    with asked() as api:
        answers = [_send(api, part, write=False) for part in _parts(api, provider, model, markup)]
    show(answers, as_json, _changes)


@prices_app.command("show")
def prices_show(
    model: Annotated[str, typer.Argument(help="the provider's exact name of it")], as_json: Json = False
) -> None:
    """Show what the book has for a model."""
    with asked() as api:
        found = api.call("GET", path("price-book"), query={"model": model})
        if not found["items"]:
            raise Failure("the price book has no model of exactly this name; see: weir prices import", status=REFUSED)
    show(found["items"], as_json, lambda items: (line for item in items for line in _entry_lines(item)))


@prices_app.command("apply")
def prices_apply(model: Models = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Price the models that were priced by the book at what it says now. In force when this returns."""
    with asked() as api:
        found = api.call("POST", path("price-book", "apply"), body={"models": model, "dry_run": dry_run})
    priced = [item for item in found["items"] if "problem" not in item]
    show(found, as_json, lambda _: table([*change_rows(priced)], APPLIED, none="no price changes"))
    for item in found["items"]:
        if "problem" in item:
            print(f"{item['model']} keeps its price: {item['problem']}", file=sys.stderr)


def _parts(
    api: Client, providers: Sequence[Provider] | None, models: Sequence[str] | None, markup: str | None
) -> list[dict[str, Any]]:
    """A body of the API for each provider: the book as it would be."""
    from weir import price_import  # reads a megabyte of prices

    now = datetime.now(UTC)
    found = {each.value: price_import.entries(each.value, now) for each in providers or Provider}
    if models:
        _check_names(models, found)
    parts = []
    for name, (entries, _) in found.items():
        wanted = [entry for entry in entries if not models or entry["model"] in models]
        if models and not wanted:
            continue
        version, kept = _book(api, name)
        factors = {entry["model"]: entry["markup"] for entry in kept}
        new = {e["model"]: {**e, "markup": markup or factors.get(e["model"], "1")} for e in wanted}
        if models:
            new = {entry["model"]: entry for entry in kept} | new
        body = {"provider": name, "source": price_import.VERSION, "based_on": version}
        parts.append({**body, "entries": [new[each] for each in sorted(new)]})
    return parts


def _check_names(models: Sequence[str], found: dict[str, Any]) -> None:
    """Every name must be one that a provider has, letter for letter: a name that only begins like one has no price."""
    for model in models:
        if any(entry["model"] == model for part in found.values() for entry in part.entries):
            continue
        reasons = [part.unusable[model] for part in found.values() if model in part.unusable]
        near = sorted({e["model"] for part in found.values() for e in part.entries if model.startswith(e["model"])})
        hint = f" (it has {', '.join(near)}, which is another)" if near else ""
        why = reasons[0] if reasons else f"the source has no model of exactly this name{hint}"
        raise Failure(f"{model}: {why}", status=REFUSED)


def _book(api: Client, provider: str) -> tuple[int, list[dict[str, Any]]]:
    """The version of a provider's part of the book, and its entries as they are put."""
    kept: list[dict[str, Any]] = []
    cursor = None
    while True:
        query = {"provider": provider, "limit": _PAGE, "cursor": cursor}
        page = api.call("GET", path("price-book"), query=query)
        kept += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    version = kept[0]["version"] if kept else 0
    return version, [{name: value for name, value in entry.items() if name not in _OUTSIDE} for entry in kept]


def _send(api: Client, part: dict[str, Any], *, write: bool) -> Row:
    if write:
        answer = api.call("PUT", path("price-book"), body=part)
    else:
        answer = api.call("POST", path("price-book", "diff"), body=part)
    return dict(answer)


def _changes(answers: Sequence[Row]) -> Iterable[str]:
    items = [{**item, "provider": answer["provider"]} for answer in answers for item in answer["items"]]
    return table([*change_rows(items)], CHANGES, none="nothing differs")


def _tell(part: dict[str, Any], answer: Row, *, dry_run: bool) -> None:
    """What a person may want to know after an import; on stderr, so that `--json` stays JSON."""
    entries, provider = part["entries"], part["provider"]
    state = "nothing was written" if dry_run else f"version {answer['version']} of the book"
    print(f"{provider}: {len(entries)} models from {part['source']}; {state}", file=sys.stderr)
    left = sum(bool(entry["left_out"]) for entry in entries)
    if left:
        print(
            f"{provider}: of {left} models Weir cannot bill every charge; weir prices show names them", file=sys.stderr
        )
    behind = sorted({name for item in answer["items"] for name in item["served_as"]})
    if behind and not dry_run:
        print(f"{provider}: {', '.join(behind)} cost what they did; see: weir prices apply --dry-run", file=sys.stderr)


def _entry_lines(entry: Row) -> Iterable[str]:
    left = [f"{name} ${amount}" for name, amount in entry["left_out"].items()]
    yield from lines(
        [
            ("model", entry["model"]),
            ("provider", entry["provider"]),
            ("source", f"{entry['source']}, version {entry['version']} of the book, {entry['imported_at']}"),
            ("markup", entry["markup"]),
            ("context window", entry["context_window"]),
            ("cannot be billed", left),
            ("not from the source", entry["derived"]),
        ]
    )
    yield ""
    yield from price_table(entry["price"])
    for later in entry["upcoming"]:
        yield from ("", f"from {later['starts']}:")
        yield from price_table(later["price"])
