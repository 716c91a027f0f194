"""``lava-proxy quarantine``: rows that could not be booked, and what becomes of them."""

from __future__ import annotations

from typing import Annotated

import typer

from lava_proxy.books.quarantine import Retried
from lava_proxy.books.quarantine import release as release_row
from lava_proxy.books.quarantine import retry as retry_row
from lava_proxy.cli.run import run
from lava_proxy.cli.tools import open_database
from lava_proxy.core.clock import SystemClock
from lava_proxy.core.money import format_e10
from lava_proxy.core.settings import Settings
from lava_proxy.store.quarantine import Kept, held_ids, newest

quarantine_app = typer.Typer(help="Rows that could not be booked.", no_args_is_help=True)

Row = Annotated[int, typer.Argument(help="A row's number, as in the list.")]


@quarantine_app.command("list")
def show(
    everything: Annotated[
        bool, typer.Option("--all", help="Those too that were booked or released.")
    ] = False,
    most: Annotated[int, typer.Option(help="How many, the newest first.")] = 50,
    whole: Annotated[bool, typer.Option(help="With all that is known of each.")] = False,
) -> None:
    """Show quarantined rows, newest first."""
    for row in run(lambda settings: _newest(settings, everything, most)):
        typer.echo(
            f"{row.quarantine_id} {row.created_at:%F %T} UTC {row.request_id} {row.owner_id or '-'}"
            f" {row.state}, charge {format_e10(row.charge_e10)},"
            f" held {format_e10(row.held_e10)}: {row.error}"
        )
        if whole:
            typer.echo(row.settlement.decode("utf-8", "backslashreplace"))


@quarantine_app.command()
def retry(
    row: Annotated[int | None, typer.Argument(help="A row's number; default: all held.")] = None,
) -> None:
    """Book what is held, with what its charge comes to. Said twice, it is booked once."""
    told = run(lambda settings: _retry(settings, row))
    for one in told:
        done = f"booked, charge {format_e10(one.charge_e10)}" if one.error is None else one.error
        typer.echo(f"{one.quarantine_id}: {done}", err=one.error is not None)
    raise typer.Exit(1 if any(one.error for one in told) else 0)


@quarantine_app.command()
def release(row: Row) -> None:
    """Give the credit that is held for a row back to its customer: it is not charged."""
    run(lambda settings: _release(settings, row))
    typer.echo(f"{row}: released")


async def _newest(settings: Settings, everything: bool, most: int) -> list[Kept]:
    async with open_database(settings) as database, database.connection() as conn:
        return await newest(conn, held_only=not everything, most=most)


async def _retry(settings: Settings, row: int | None) -> list[Retried]:
    now = SystemClock().now()
    async with open_database(settings) as database:
        async with database.connection() as conn:
            rows = await held_ids(conn) if row is None else [row]
        return [await retry_row(database, one, now) for one in rows]


async def _release(settings: Settings, row: int) -> None:
    async with open_database(settings) as database:
        await release_row(database, row, SystemClock().now())
