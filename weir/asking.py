"""How a verb asks the admin API and prints its answer; and the options that several verbs share."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from weir.client import Client, Failure, connect
from weir.tables import Column, table

Json = Annotated[bool, typer.Option("--json", help="print the API's JSON")]
Once = Annotated[str | None, typer.Option("--idempotency-key", help="make a repeat of this command do nothing new")]
PerMinute = Annotated[int | None, typer.Option("--requests-per-minute")]
TokensPerMinute = Annotated[int | None, typer.Option("--tokens-per-minute")]
Concurrency = Annotated[int | None, typer.Option("--concurrency", help="requests at a time")]
PageLimit = Annotated[int, typer.Option("--limit", help="how many at most")]
PageCursor = Annotated[str | None, typer.Option("--cursor", help="go on from where the last page ended")]
Usd = Annotated[str | None, typer.Option(help="in USD, such as 12.50")]


@contextmanager
def asked() -> Iterator[Client]:
    """A client; a Failure of what is done with it ends the command with its lines and status."""
    try:
        with connect() as client:
            yield client
    except Failure as failure:
        for line in failure.lines:
            print(line, file=sys.stderr)
        raise typer.Exit(failure.status) from None


def show(answer: Any, as_json: bool, form: Callable[[Any], Iterable[str]]) -> None:
    """The answer as the API gave it, or in a form for people."""
    print(json.dumps(answer) if as_json else "\n".join(form(answer)))


def show_page(answer: Any, as_json: bool, columns: list[Column], *, none: str) -> None:
    show(answer, as_json, lambda page: table(page["items"], columns, none=none))
    if answer["next_cursor"] and not as_json:
        print(f"more: --cursor {answer['next_cursor']}", file=sys.stderr)


def given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
