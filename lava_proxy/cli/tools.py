"""What the small commands do: open the database (embedded or not), one task, close."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from lava_proxy.books.folder import lock_folder
from lava_proxy.books.journal import JournalError
from lava_proxy.books.prices import load_history, load_prices
from lava_proxy.books.replay import Replayed, replay_folder, take_over
from lava_proxy.books.share import Share
from lava_proxy.core.clock import SystemClock
from lava_proxy.core.environment import unknown_names
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_id
from lava_proxy.core.providers import registry_of
from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.payments.factory import make_payments
from lava_proxy.payments.seam import PaymentsDown
from lava_proxy.proxy.assemble import egress_of
from lava_proxy.rules.catalog import Override, compile_override
from lava_proxy.rules.rates import RateError
from lava_proxy.store import balance as balances
from lava_proxy.store import credit as credit_store
from lava_proxy.store import directory as directory_store
from lava_proxy.store import keys as key_store
from lava_proxy.store import outbox
from lava_proxy.store import prices as price_store
from lava_proxy.store.audit import Audit, audit
from lava_proxy.store.corrections import Change
from lava_proxy.store.database import Database, StoreError, connect
from lava_proxy.store.embedded import start_embedded
from lava_proxy.store.migrate import migrate, status
from lava_proxy.store.prices import PriceRow
from lava_proxy.store.reratings import rerate


@asynccontextmanager
async def database_url(settings: Settings) -> AsyncIterator[tuple[str, str]]:
    """(pooled URL, direct URL) of the database; the embedded server runs inside the block."""
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        direct = settings.database_direct_url
        yield url, direct.get_secret_value() if direct else url
        return
    server = await start_embedded(settings.data_dir)
    try:
        yield server.url, server.url
    finally:
        await server.release()


@asynccontextmanager
async def open_database(
    settings: Settings, *, statement_timeout_s: float | None = None
) -> AsyncIterator[Database]:
    """A migrated database, open inside the block."""
    async with database_url(settings) as (url, direct):
        await migrate(direct)
        database = Database(
            url,
            direct_url=direct,
            size=2,
            statement_cache_size=settings.database_statement_cache,
            statement_timeout_s=statement_timeout_s or settings.database_timeout_s,
        )
        await database.open()
        try:
            yield database
        finally:
            await database.close()


async def migrate_now(settings: Settings) -> list[str]:
    """Apply what is missing; the names applied."""
    async with database_url(settings) as (_, direct):
        return await migrate(direct)


async def create_key(settings: Settings, name: str, test: bool, merchant: str) -> dict[str, str]:
    """A new secret key, as the JSON that ``keys create`` prints."""
    async with open_database(settings) as database, database.transaction() as conn:
        made = await key_store.create_key(conn, name=name, test=test, merchant_name=merchant)
    return {
        "secret_key": made.secret_key,
        "secret_key_id": made.secret_key_id,
        "merchant_id": made.merchant_id,
    }


async def grant_credit(settings: Settings, customer: str, amount_e10: int, note: str | None) -> int:
    """Grant (or take back) credit; what the customer has in all."""
    now = SystemClock().now()
    async with open_database(settings) as database, database.transaction() as conn:
        found = await directory_store.customers_named(conn, customer)
        if len(found) != 1:
            raise LavaError("not_found", f"{len(found)} customers are named {customer!r}")
        owner_id = found[0]
        if amount_e10 > 0:
            await credit_store.grant(
                conn,
                grant_id=new_id("credit"),
                owner_id=owner_id,
                kind="operator",
                amount_e10=amount_e10,
                expires_at=None,
                note=note,
                now=now,
            )
        elif amount_e10 < 0:
            await credit_store.withdraw(conn, owner_id=owner_id, amount_e10=-amount_e10, now=now)
        balance = await balances.balance(conn, owner_id)
    return balance.available_e10 + balance.held_e10


async def add_price(settings: Settings, wanted: PriceRow) -> None:
    """Add a price; running gateways use it within seconds."""
    if registry_of(settings).by_id(wanted.provider) is None:
        raise LavaError("not_found", f"there is no provider {wanted.provider!r}")
    rates = tuple(wanted.rates.items())
    try:
        compile_override(
            Override(wanted.price_id, wanted.provider, wanted.match, wanted.model, rates)
        )
    except RateError as error:
        raise LavaError("validation_error", str(error)) from None
    async with open_database(settings) as database, database.transaction() as conn:
        await price_store.create(conn, wanted)


async def all_prices(settings: Settings) -> list[PriceRow]:
    """Every price, the operator's and the merchants', newest first."""
    async with open_database(settings) as database, database.connection() as conn:
        return await price_store.every(conn)


async def remove_price(settings: Settings, price_id: str) -> None:
    """Take a price away, the operator's or a merchant's."""
    now = SystemClock().now()
    async with open_database(settings) as database, database.transaction() as conn:
        if not await price_store.remove(conn, None, price_id, now):
            raise LavaError("not_found", f"there is no price {price_id!r}")


async def rerate_requests(settings: Settings, *, dry: bool) -> list[Change]:
    """Re-rate what was booked without a price and has one now."""
    now = SystemClock().now()
    names = registry_of(settings).price_names
    async with open_database(settings) as database:
        prices = await load_history(database, now, names)
        return [change async for change in rerate(Share(database, 1), prices, now, dry=dry)]


async def deliveries(settings: Settings, status: str, most: int) -> list[Mapping[str, object]]:
    """The newest deliveries of webhooks."""
    async with open_database(settings) as database, database.connection() as conn:
        return await outbox.newest(conn, status, most)


async def resend(settings: Settings, event: str | None, webhook: str | None) -> int:
    """Make deliveries due again; how many."""
    if (event is None) == (webhook is None):
        raise LavaError("validation_error", "give an event, or --webhook")
    now = SystemClock().now()
    async with open_database(settings) as database, database.transaction() as conn:
        return await outbox.resend(conn, event_id=event, webhook_id=webhook, now=now)


async def replay_journals(settings: Settings, folder: Path | None) -> list[Replayed]:
    """Book one journal folder (a copy of a dead machine's), or all whose process is gone."""
    clock = SystemClock()
    async with open_database(settings) as database:
        names = registry_of(settings).price_names
        prices = await load_prices(database, clock.now(), names)
        if folder is None:
            return await take_over(settings.data_dir / "journals", database, clock, prices)
        try:
            lock_fd = lock_folder(folder)
        except JournalError as error:
            raise LavaError("conflict", str(error)) from None
        try:
            return [await replay_folder(folder, database, clock, prices)]
        finally:
            os.close(lock_fd)


async def audit_books(settings: Settings, *, full: bool = True) -> Audit:
    """Check the books, from the beginning or from the last audit."""
    async with open_database(settings) as database:
        return await audit(database, full=full)


async def examine(settings: Settings) -> list[tuple[bool, str]]:
    """(fine?, sentence) for everything that can be wrong before the first request."""
    lines = [(False, complaint) for complaint in unknown_names(os.environ)]
    lines += _providers(settings)
    lines.append(await ask_payments(settings))
    try:
        async with database_url(settings) as (url, direct):
            state = await status(direct)
            lines.append((state.problem is None, state.problem or "schema can be used"))
            lines.append((True, f"{len(state.applied)} migrations applied"))
            if state.pending:
                lines.append((True, f"pending (serve applies them): {', '.join(state.pending)}"))
            lines.append(await _pooler(url, direct, settings))
    except StoreError as error:
        lines.append((False, f"database: {error}"))
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    lines.append((os.access(settings.data_dir, os.W_OK), f"data folder {settings.data_dir}"))
    return lines


def _providers(settings: Settings) -> list[tuple[bool, str]]:
    """The provider table can be read; bases and managed keys are of providers in it, and usable."""
    lines: list[tuple[bool, str]] = []
    try:
        registry = registry_of(settings)
        known = {provider.id for provider in registry.providers}
        keys = sorted(settings.provider_keys)
        lines += [(provider in known, f"managed key for {provider}") for provider in keys]
        egress_of(settings, registry)
    except ConfigurationError as error:
        lines.append((False, str(error)))
    return lines


async def ask_payments(settings: Settings) -> tuple[bool, str]:
    """Whether the payment provider answers, and takes our key: asked for a card that nobody has."""
    try:
        payments = make_payments(settings)
    except ConfigurationError as error:
        return False, str(error)
    try:
        await payments.payer_of("pm_none")
    except PaymentsDown as error:
        return False, f"payments: {error}"
    finally:
        payments.close()
    return True, f"payments: {payments.name}"


async def _pooler(url: str, direct: str, settings: Settings) -> tuple[bool, str]:
    """Whether the settings fit a transaction pooler, if there is one: then two sessions of ours
    meet the same server process while both are open, or one of them meets two."""
    first, second = await connect(url), await connect(url)
    try:
        seen = [await directory_store.backend_pid(conn) for conn in (first, second, first)]
    finally:
        first.terminate()
        second.terminate()
    if seen[0] != seen[1] and seen[0] == seen[2]:
        return True, "no transaction pooler seen"
    if settings.database_statement_cache:
        return False, (
            "a transaction pooler is between us and PostgreSQL: set "
            "LAVA_DATABASE_STATEMENT_CACHE=0, and LAVA_DATABASE_DIRECT_URL if you can"
        )
    if url == direct:
        return True, (
            "behind a transaction pooler, without LAVA_DATABASE_DIRECT_URL: changes are found by "
            "polling, and other workers are not asked for idle credit before a 402"
        )
    return True, "behind a transaction pooler, with LAVA_DATABASE_DIRECT_URL"
