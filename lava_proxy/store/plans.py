"""Plans, the meters that they cover and the bundles that they sell, in PostgreSQL.

Who subscribes holds the plan's row against deletion, and who deletes holds it against subscribers,
so nobody ends up on a plan that is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

import asyncpg

from lava_proxy.core.errors import LavaError
from lava_proxy.rules.cycle import Interval
from lava_proxy.store.database import Connection
from lava_proxy.store.place import Place
from lava_proxy.store.sql import load

Q = load("plans")

Rollover = Literal["full", "none"]


@dataclass(frozen=True, slots=True)
class BundleRow:
    """A credit bundle as stored."""

    credit_bundle_id: str
    plan_id: str
    name: str
    cost_e10: int
    credit_e10: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LinkedMeter:
    """A meter on a plan."""

    meter_id: str
    name: str


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A plan as stored, with what belongs to it."""

    plan_id: str
    merchant_id: str
    name: str
    period_amount_e10: int
    included_credit_e10: int
    billing_interval: Interval
    rollover_type: Rollover
    bundle_rollover_type: Rollover
    default_top_up_bundle_id: str | None
    created_at: datetime
    meters: tuple[LinkedMeter, ...] = ()
    bundles: tuple[BundleRow, ...] = ()


@dataclass(frozen=True, slots=True)
class BundleChange:
    """A bundle of a plan that is to change; None stays as it is."""

    credit_bundle_id: str
    name: str | None = None
    cost_e10: int | None = None
    credit_e10: int | None = None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class PlanChange:
    """What is to change; None stays as it is."""

    name: str | None = None
    included_credit_e10: int | None = None
    rollover_type: Rollover | None = None
    bundle_rollover_type: Rollover | None = None
    meters: Sequence[str] | None = None
    bundles: Sequence[BundleChange] = ()
    new_bundles: Sequence[BundleRow] = ()
    set_default: bool = False
    default_bundle_id: str | None = None


async def create(conn: Connection, wanted: PlanRow, meters: Sequence[str]) -> PlanRow:
    """Make a plan with its bundles and meters; 404 for a meter that is not the merchant's."""
    await Q["insert_plan"].execute(
        conn,
        plan_id=wanted.plan_id,
        merchant_id=wanted.merchant_id,
        name=wanted.name,
        period_amount=wanted.period_amount_e10,
        included=wanted.included_credit_e10,
        billing_interval=wanted.billing_interval,
        rollover=wanted.rollover_type,
        bundle_rollover=wanted.bundle_rollover_type,
        default_bundle_id=wanted.default_top_up_bundle_id,
        now=wanted.created_at,
    )
    await _add_bundles(conn, wanted.plan_id, wanted.merchant_id, wanted.bundles, wanted.created_at)
    await _set_meters(conn, wanted.plan_id, wanted.merchant_id, meters)
    return await _made(conn, wanted.merchant_id, wanted.plan_id)


async def update(
    conn: Connection, merchant_id: str, plan_id: str, change: PlanChange, now: datetime
) -> PlanRow | None:
    """Change a plan; None where there is none, 422 for a bundle of another plan."""
    if await Q["lock_plan"].fetchval(conn, plan_id=plan_id, merchant_id=merchant_id) is None:
        return None
    await Q["update_plan"].execute(
        conn,
        plan_id=plan_id,
        name=change.name,
        included=change.included_credit_e10,
        rollover=change.rollover_type,
        bundle_rollover=change.bundle_rollover_type,
    )
    for bundle in change.bundles:
        await _change_bundle(conn, plan_id, bundle, now)
    await _add_bundles(conn, plan_id, merchant_id, change.new_bundles, now)
    if change.set_default:
        done = await Q["set_default_bundle"].fetchval(
            conn, plan_id=plan_id, bundle_id=change.default_bundle_id
        )
        if done is None:
            raise _not_its_bundle("default_auto_top_up_bundle_id")
    if change.meters is not None:
        await _set_meters(conn, plan_id, merchant_id, change.meters)
    return await _made(conn, merchant_id, plan_id)


async def delete(conn: Connection, merchant_id: str, plan_id: str, now: datetime) -> bool:
    """End a plan; False where there is none, 409 while customers are on it."""
    if await Q["lock_plan"].fetchval(conn, plan_id=plan_id, merchant_id=merchant_id) is None:
        return False
    if await Q["plan_in_use"].fetchval(conn, plan_id=plan_id):
        raise LavaError("conflict", "customers are on this plan, or will be")
    await Q["delete_plan"].execute(conn, plan_id=plan_id, now=now)
    return True


async def find(conn: Connection, merchant_id: str, plan_id: str) -> PlanRow | None:
    """A merchant's plan."""
    row = await Q["find_plan"].fetchrow(conn, merchant_id=merchant_id, plan_id=plan_id)
    return None if row is None else _plan(row)


async def page(conn: Connection, merchant_id: str, behind: Place, most: int) -> list[PlanRow]:
    """At most `most` plans behind a place, newest first."""
    rows = await Q["list_plans"].fetch(
        conn, merchant_id=merchant_id, before_at=behind.at, before_id=behind.id, most=most
    )
    return [_plan(row) for row in rows]


async def find_bundle(conn: Connection, merchant_id: str, bundle_id: str) -> BundleRow | None:
    """A merchant's bundle."""
    row = await Q["find_bundle"].fetchrow(conn, merchant_id=merchant_id, credit_bundle_id=bundle_id)
    return None if row is None else BundleRow(**dict(row))


async def page_of_bundles(
    conn: Connection, merchant_id: str, plan_id: str | None, behind: Place, most: int
) -> list[BundleRow]:
    """At most `most` bundles behind a place, newest first."""
    rows = await Q["list_bundles"].fetch(
        conn,
        merchant_id=merchant_id,
        plan_id=plan_id,
        before_at=behind.at,
        before_id=behind.id,
        most=most,
    )
    return [BundleRow(**dict(row)) for row in rows]


async def _made(conn: Connection, merchant_id: str, plan_id: str) -> PlanRow:
    row = await find(conn, merchant_id, plan_id)
    if row is None:
        raise LavaError("not_found", "there is no such plan")
    return row


async def _add_bundles(
    conn: Connection, plan_id: str, merchant_id: str, bundles: Sequence[BundleRow], now: datetime
) -> None:
    if not bundles:
        return
    await Q["insert_bundles"].execute(
        conn,
        plan_id=plan_id,
        merchant_id=merchant_id,
        ids=[bundle.credit_bundle_id for bundle in bundles],
        names=[bundle.name for bundle in bundles],
        costs=[bundle.cost_e10 for bundle in bundles],
        credits=[bundle.credit_e10 for bundle in bundles],
        now=now,
    )


async def _change_bundle(
    conn: Connection, plan_id: str, change: BundleChange, now: datetime
) -> None:
    if change.removed:
        done = await Q["remove_bundle"].fetchval(
            conn, plan_id=plan_id, credit_bundle_id=change.credit_bundle_id, now=now
        )
    else:
        done = await Q["update_bundle"].fetchval(
            conn,
            plan_id=plan_id,
            credit_bundle_id=change.credit_bundle_id,
            name=change.name,
            cost=change.cost_e10,
            credit=change.credit_e10,
        )
    if done is None:
        raise _not_its_bundle("credit_bundles")


async def _set_meters(
    conn: Connection, plan_id: str, merchant_id: str, meters: Sequence[str]
) -> None:
    rows = await Q["lock_meters"].fetch(conn, merchant_id=merchant_id, meters=list(meters))
    known = {row["meter_id"] for row in rows} | {row["slug"] for row in rows}
    if not known.issuperset(meters):
        raise LavaError("not_found", "there is no such meter")
    meter_ids = [row["meter_id"] for row in rows]
    await Q["unlink_meters"].execute(conn, plan_id=plan_id, meter_ids=meter_ids)
    await Q["link_meters"].execute(conn, plan_id=plan_id, meter_ids=meter_ids)


def _not_its_bundle(path: str) -> LavaError:
    message = "names a bundle that is not this plan's"
    return LavaError(
        "validation_error", f"{path}: {message}", details=[{"path": path, "message": message}]
    )


def _plan(row: asyncpg.Record) -> PlanRow:
    values = dict(row)
    meters, bundles = values.pop("meters"), values.pop("bundles")
    return PlanRow(
        **values,
        meters=tuple(LinkedMeter(*cast("tuple[str, str]", meter)) for meter in meters),
        bundles=tuple(BundleRow(*bundle) for bundle in bundles),
    )
