"""``lava-proxy webhooks``: what became of deliveries, sending again, and other secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

import typer

from lava_proxy.cli import tools
from lava_proxy.cli.run import run
from lava_proxy.cli.tools import open_database
from lava_proxy.core.clock import SystemClock
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_webhook_secret
from lava_proxy.core.settings import Settings
from lava_proxy.core.vault import open_vault
from lava_proxy.store import webhooks as store
from lava_proxy.store.webhooks import WebhookRow

webhooks_app = typer.Typer(help="Deliveries of events.", no_args_is_help=True)

Status = Literal["all", "pending", "failed", "delivered", "dead"]
Webhook = Annotated[str, typer.Argument(help="A webhook's id.")]


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


@webhooks_app.command()
def rotate(
    webhook: Webhook,
    overlap_s: Annotated[
        int | None, typer.Option(min=0, help="How long the old secret goes on signing.")
    ] = None,
) -> None:
    """Put another secret in the place of a webhook's, and print it, this once."""
    secret = new_webhook_secret()
    run(lambda settings: _rotate(settings, webhook, secret, overlap_s))
    typer.echo(secret)


@webhooks_app.command()
def enable(webhook: Webhook) -> None:
    """Send again to a webhook that was disabled because it only failed."""
    row = run(lambda settings: _enable(settings, webhook))
    typer.echo(f"{row.webhook_id} is active")


async def _enable(settings: Settings, webhook_id: str) -> WebhookRow:
    now = SystemClock().now()
    async with open_database(settings) as database, database.transaction() as conn:
        return _known(await store.update(conn, None, webhook_id, enable=True, now=now))


async def _rotate(
    settings: Settings, webhook_id: str, secret: str, overlap_s: int | None
) -> WebhookRow:
    vault = open_vault(settings)
    wanted_s = settings.webhook_rotation_overlap_s if overlap_s is None else overlap_s
    async with open_database(settings) as database, database.transaction() as conn:
        row = await store.rotate(
            conn,
            None,
            webhook_id,
            lambda: vault.seal(secret, webhook_id),
            overlap=timedelta(seconds=wanted_s),
            now=SystemClock().now(),
        )
    return _known(row)


def _known(row: WebhookRow | None) -> WebhookRow:
    if row is None:
        raise LavaError("not_found", "there is no such webhook")
    return row
