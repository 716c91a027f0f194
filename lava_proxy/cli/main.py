"""The commands users know: serve, demo, migrate, keys, credit, replay, audit, doctor."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from lava_proxy import __version__
from lava_proxy.cli import tools
from lava_proxy.cli.prices import prices_app
from lava_proxy.cli.quarantine import quarantine_app
from lava_proxy.cli.run import run
from lava_proxy.cli.wallet import wallet_app
from lava_proxy.cli.webhooks import webhooks_app
from lava_proxy.core.environment import load_settings
from lava_proxy.core.money import format_e10, parse_e10
from lava_proxy.core.settings import ConfigurationError

app = typer.Typer(
    name="lava-proxy",
    help="A metering and billing gateway for AI APIs. Settings come from LAVA_* variables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="Secret keys of merchants.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
app.add_typer(prices_app, name="prices")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(wallet_app, name="wallet")
app.add_typer(webhooks_app, name="webhooks")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Serving processes.")] = None,
) -> None:
    """Run the gateway."""
    from lava_proxy.cli.serve import serve as run_server

    given = {"host": host, "port": port, "workers": workers}
    try:
        settings = load_settings(os.environ, **{k: v for k, v in given.items() if v is not None})
        sys.exit(run_server(settings))
    except ConfigurationError as error:
        typer.echo(f"lava-proxy: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def demo(
    once: Annotated[bool, typer.Option(help="Exit after the story.")] = False,
    port: Annotated[int, typer.Option(help="Port to serve on afterwards.")] = 8080,
    data_dir: Annotated[Path | None, typer.Option(help="Default: a temporary folder.")] = None,
) -> None:
    """Watch a stream being metered, cut off when the money ends, and its ledger rows."""
    from lava_proxy.cli.demo import run_demo

    raise typer.Exit(run_demo(once=once, port=port, data_dir=data_dir))


@app.command()
def migrate() -> None:
    """Bring the database schema up to date."""
    for name in run(tools.migrate_now):
        typer.echo(f"applied {name}")
    typer.echo("the schema is up to date")


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    test: Annotated[bool, typer.Option(help="A test-mode key.")] = False,
    merchant: Annotated[str, typer.Option(help="Name of the merchant, if it is new.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Create a secret key; the first one creates the merchant too. It is shown once."""
    made = run(lambda settings: tools.create_key(settings, name, test, merchant))
    typer.echo(json.dumps(made) if as_json else made["secret_key"])


@app.command(context_settings={"ignore_unknown_options": True})
def credit(
    customer: Annotated[str, typer.Argument(help="Customer id, or the merchant's reference.")],
    amount: Annotated[str, typer.Argument(help="USD, such as 12.50; negative takes back.")],
    note: Annotated[str | None, typer.Option(help="Kept with the grant.")] = None,
) -> None:
    """Grant credit to a customer."""
    left = run(lambda settings: tools.grant_credit(settings, customer, parse_e10(amount), note))
    typer.echo(f"{customer}: {format_e10(left)} USD of credit in all")


@app.command()
def replay(
    folder: Annotated[Path | None, typer.Argument(help="A journal folder; default: all.")] = None,
) -> None:
    """Book the journals of processes that will not come back."""
    for done in run(lambda settings: tools.replay_journals(settings, folder)):
        typer.echo(
            f"{done.holder_id}: {done.calls} calls, {done.booked} booked now, {done.void} void"
        )
        if done.damaged:
            typer.echo(
                f"{done.holder_id}: damaged, its end is not booked: {done.damaged}", err=True
            )


@app.command()
def audit(
    full: Annotated[
        bool, typer.Option(help="From the beginning, instead of from the last audit.")
    ] = False,
) -> None:
    """Prove that the books add up; status 1 when they do not."""
    found = run(lambda settings: tools.audit_books(settings, full=full))
    since = "in all" if found.full else "since the last audit"
    typer.echo(
        f"{found.requests} requests and {found.entries} ledger entries {since}\n"
        f"granted {format_e10(found.granted_e10)} = available {format_e10(found.available_e10)}"
        f" + leased {format_e10(found.leased_e10)} + spent {format_e10(found.spent_e10)}"
        f" + expired {format_e10(found.expired_e10)}   (owed: {format_e10(found.debt_e10)})"
    )
    for difference in found.differences:
        typer.echo(f"{difference.check}: {dict(difference.facts)}", err=True)
    if found.quarantined:
        typer.echo(
            f"{found.quarantined} rows are not booked, {format_e10(found.quarantined_e10)} USD by"
            " what is known: see lava-proxy quarantine list",
            err=True,
        )
    typer.echo("the books add up" if found.sound else "THE BOOKS DO NOT ADD UP")
    raise typer.Exit(0 if found.sound else 1)


@app.command()
def doctor() -> None:
    """Check configuration, database, schema, data folder and provider keys."""
    worst = 0
    for ok, line in run(tools.examine):
        typer.echo(f"{'ok  ' if ok else 'BAD '} {line}")
        worst = max(worst, 0 if ok else 1)
    raise typer.Exit(worst)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)
