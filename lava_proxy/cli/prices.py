"""``lava-proxy prices``: the operator's own prices, which hold for every merchant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from lava_proxy.cli import tools
from lava_proxy.cli.run import run
from lava_proxy.core.clock import SystemClock
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_id
from lava_proxy.core.money import format_e10
from lava_proxy.core.settings import Settings
from lava_proxy.rules.catalog import Match
from lava_proxy.store.prices import PriceRow

prices_app = typer.Typer(help="The operator's own prices.", no_args_is_help=True)


@prices_app.command("list")
def show() -> None:
    """Show all prices that are in force or to come, newest first."""
    for row in run(tools.all_prices):
        rates = " ".join(f"{name}={rate}" for name, rate in row.rates.items())
        whose, model = row.merchant_id or "operator", row.model or "*"
        since = row.effective_from.isoformat()
        typer.echo(
            f"{row.price_id} {whose} {row.provider} {row.match} {model} from {since}: {rates}"
        )


@prices_app.command("set")
def set_price(
    provider: Annotated[str, typer.Argument(help="Provider id, such as openai.")],
    rate: Annotated[list[str], typer.Option(help="NAME=USD, such as input_1m=2.50; repeat.")],
    model: Annotated[str, typer.Argument(help="Model; none: the provider's default.")] = "",
    prefix: Annotated[bool, typer.Option(help="MODEL is how names begin.")] = False,
    since: Annotated[datetime | None, typer.Option(help="UTC; default: now.")] = None,
) -> None:
    """Set a price; what was booked by the one before it stays."""
    match: Match = "default" if not model else "prefix" if prefix else "exact"
    now = SystemClock().now()
    at = now if since is None else since.replace(tzinfo=UTC)
    price_id = new_id("price")

    async def work(settings: Settings) -> None:
        rates = _rates(rate)
        wanted = PriceRow(price_id, None, provider, match, model, rates, at, now)
        await tools.add_price(settings, wanted)

    run(work)
    typer.echo(price_id)


@prices_app.command()
def remove(price_id: Annotated[str, typer.Argument(help="As in the list.")]) -> None:
    """Take a price away, a merchant's too; what was booked by it stays."""
    run(lambda settings: tools.remove_price(settings, price_id))


@prices_app.command()
def rerate(
    dry_run: Annotated[bool, typer.Option(help="Only tell what would change.")] = False,
) -> None:
    """Correct requests whose price is known only now, by new ledger rows; each once."""
    told = run(lambda settings: tools.rerate_requests(settings, dry=dry_run))
    for change in told:
        cost, charge = format_e10(change.cost_change_e10), format_e10(change.charge_change_e10)
        typer.echo(
            f"{change.request_id} {change.model}: cost {cost}, charge {charge} by {change.version}"
        )
    typer.echo(f"{len(told)} requests {'to re-rate' if dry_run else 're-rated'}")


def _rates(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if any(not sign for _, sign, _ in pairs) or len({name for name, _, _ in pairs}) != len(pairs):
        raise LavaError("validation_error", "give every rate once, as NAME=USD")
    return {name: usd for name, _, usd in pairs}
