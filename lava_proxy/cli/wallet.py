"""``lava-proxy wallet``: merchants' wallets for the operator, who says when money is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from lava_proxy.cli.run import run
from lava_proxy.cli.tools import open_database
from lava_proxy.core.clock import SystemClock
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import id_from, new_id, wallet_id_of
from lava_proxy.core.money import format_e10, parse_e10
from lava_proxy.core.settings import Settings
from lava_proxy.payments.manual import Manual
from lava_proxy.store import keys, payments, wallets
from lava_proxy.store.database import Connection
from lava_proxy.store.wallets import Waiting, Wallet

wallet_app = typer.Typer(help="Wallets of merchants.", no_args_is_help=True)

WAITING_MAX = 50

Merchant = Annotated[str, typer.Option(help="Id or name; the first one if it is not given.")]


@dataclass(frozen=True, slots=True)
class Shown:
    """What the operator sees of a wallet."""

    wallet_id: str
    wallet: Wallet
    waiting: list[Waiting]


@wallet_app.command()
def show(merchant: Merchant = keys.DEFAULT_MERCHANT) -> None:
    """Show a wallet, and payments into it that nobody has confirmed."""
    _print(run(lambda settings: _show(settings, merchant)))


@wallet_app.command()
def fund(
    amount: Annotated[str, typer.Argument(help="USD, such as 250.00.")],
    merchant: Merchant = keys.DEFAULT_MERCHANT,
    reference: Annotated[
        str | None, typer.Option(help="Of the bank transfer, say: said twice, it is paid in once.")
    ] = None,
) -> None:
    """Pay in money that is there."""
    _print(run(lambda settings: _fund(settings, merchant, parse_e10(amount), reference)))


@wallet_app.command()
def complete(payment: Annotated[str, typer.Argument(help="Payment id, as in show.")]) -> None:
    """The money of a pending payment is there. Said twice, it works once."""
    _print(run(lambda settings: _complete(settings, payment)))


def _print(shown: Shown) -> None:
    wallet = shown.wallet
    typer.echo(
        f"{shown.wallet_id}: {format_e10(wallet.balance_e10)} USD"
        f" = paid in {format_e10(wallet.funded_e10)} - cost {format_e10(wallet.cost_e10)}"
    )
    for row in shown.waiting:
        typer.echo(
            f"{row.payment_id} {format_e10(row.amount_e10)} since {row.created_at:%F %T} UTC"
        )


async def _show(settings: Settings, name: str) -> Shown:
    async with open_database(settings) as database, database.connection() as conn:
        return await _shown(conn, await _merchant(conn, name))


async def _fund(settings: Settings, name: str, amount_e10: int, reference: str | None) -> Shown:
    if amount_e10 <= 0:
        raise LavaError("validation_error", "the amount must be positive")
    now = SystemClock().now()
    async with open_database(settings) as database, database.transaction() as conn:
        merchant_id = await _merchant(conn, name)
        payment_id = new_id("payment")
        if reference is not None:
            payment_id = id_from("payment", f"{merchant_id} by hand {reference}")
        await payments.open_payment(
            conn,
            payment_id=payment_id,
            merchant_id=merchant_id,
            customer_id=None,
            purpose="wallet",
            amount_e10=amount_e10,
            provider=Manual.name,
            now=now,
        )
        row = await payments.find(conn, merchant_id, payment_id)
        if row is None or row.amount_e10 != amount_e10:
            raise LavaError("conflict", f"another amount was paid in under {reference!r}")
        await payments.succeeded(conn, payment_id, None, now)
        return await _shown(conn, merchant_id)


async def _complete(settings: Settings, payment_id: str) -> Shown:
    async with open_database(settings) as database, database.transaction() as conn:
        merchant_id = await wallets.wallet_of(conn, payment_id)
        row = None if merchant_id is None else await payments.find(conn, merchant_id, payment_id)
        if merchant_id is None or row is None or row.provider != Manual.name:
            raise LavaError("not_found", f"no payment by hand into a wallet is {payment_id!r}")
        await payments.succeeded(conn, payment_id, None, SystemClock().now())
        return await _shown(conn, merchant_id)


async def _merchant(conn: Connection, name: str) -> str:
    found = await keys.merchant_named(conn, name)
    if found is None:
        raise LavaError("not_found", f"there is no merchant {name!r}")
    return found


async def _shown(conn: Connection, merchant_id: str) -> Shown:
    return Shown(
        wallet_id_of(merchant_id),
        await wallets.find(conn, merchant_id, test=False),
        await wallets.waiting(conn, merchant_id, WAITING_MAX),
    )
