"""``lava-proxy webhooks``: what became of deliveries, and sending again."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from lava_proxy.cli import tools
from lava_proxy.cli.run import run

webhooks_app = typer.Typer(help="Deliveries of events.", no_args_is_help=True)

Status = Literal["all", "pending", "failed", "delivered", "dead"]


@webhooks_app.command("list")
def show(
    status: Annotated[Status, typer.Option(help="failed: tried, and still waiting.")] = "all",
    most: Annotated[int, typer.Option(help="How many, the newest first.")] = 50,
) -> None:
    """Show deliveries, newest first."""
    for row in run(lambda settings: tools.deliveries(settings, status, most)):
        why = row["last_error"] or ""
        typer.echo(
            f"{row['event_id']} {row['webhook_id']} {row['event']} {row['customer_id']} "
            f"{row['status']} after {row['tries']} tries {why}".rstrip()
        )


@webhooks_app.command()
def resend(
    event: Annotated[str | None, typer.Argument(help="An event id, as in the list.")] = None,
    webhook: Annotated[str | None, typer.Option(help="All that is dead of this webhook.")] = None,
) -> None:
    """Deliver an event again, or everything that is dead of a webhook."""
    resent = run(lambda settings: tools.resend(settings, event, webhook))
    typer.echo(f"{resent} deliveries are due again")
    raise typer.Exit(0 if resent else 1)
