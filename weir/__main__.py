"""`weir`: everything on one machine, one process at a time, or the operator's daily verbs."""

import asyncio
import json
from typing import Annotated

import typer

app = typer.Typer(
    help="A gateway for AI APIs that keeps the bill and forgets the conversation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def up(
    demo: Annotated[bool, typer.Option("--demo", help="With a scripted provider and an account with credit.")] = False,
    as_json: Json = False,
) -> None:
    """Run everything on this machine."""
    from weir import up as running

    raise typer.Exit(running.up(running.Options(demo=demo, as_json=as_json)))


def _alone(name: str) -> None:
    from weir import up as running

    raise typer.Exit(running.alone(name))


@app.command()
def gateway() -> None:
    """Run the gateway only (WEIR_WORKERS workers)."""
    _alone("gateway")


@app.command()
def ledger() -> None:
    """Run a ledger worker only."""
    _alone("ledger")


@app.command()
def admin() -> None:
    """Run the admin API only."""
    _alone("admin")


@app.command()
def audit(as_json: Json = False) -> None:
    """Compare both books, to the nano-dollar; status 1 when they differ."""
    from weir import auditing

    report = asyncio.run(auditing.audit())
    print(json.dumps(auditing.as_dict(report)) if as_json else auditing.table(report))
    raise typer.Exit(0 if report.agrees else 1)


@app.command()
def rebuild(as_json: Json = False) -> None:
    """Refill an empty Redis from MongoDB, while no ledger worker runs (a running one does it by itself)."""
    from weir import rebuilding

    done = asyncio.run(rebuilding.rebuild(quiet=as_json))
    print(json.dumps(rebuilding.as_dict(done)) if as_json else rebuilding.table(done))


@app.command()
def doctor(
    rewrap: Annotated[bool, typer.Option("--rewrap", help="Seal anew what the previous master key sealed.")] = False,
    as_json: Json = False,
) -> None:
    """Check settings, servers, scripts, clocks and secrets; status 1 if something needs attention."""
    from weir import doctor as looking
    from weir.found import settings_of_this_machine

    found = asyncio.run(looking.examine(settings_of_this_machine(), rewrap=rewrap))
    print(json.dumps([finding._asdict() for finding in found]) if as_json else looking.table(found))
    raise typer.Exit(0 if all(finding.good for finding in found) else 1)


def main() -> None:
    from weir import verbs

    verbs.mount(app)
    app()


if __name__ == "__main__":
    main()
