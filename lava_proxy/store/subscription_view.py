"""A subscription as it is shown: in answers of the API and in what webhooks are told."""

from __future__ import annotations

from datetime import datetime
from typing import NotRequired

from typing_extensions import TypedDict

from lava_proxy.core.clock import time_text
from lava_proxy.core.money import format_e10
from lava_proxy.store.subscribed import SubscriptionRow


class TermsView(TypedDict):
    """What the plan gives, and for how much."""

    name: str
    period_amount: str
    included_credit: str
    billing_interval: str
    rollover_type: str
    bundle_rollover_type: str


class CreditsView(TypedDict):
    """What is left, held by workers included."""

    total_remaining: str
    cycle_remaining: str
    bundle_remaining: str


class ChangeView(TypedDict):
    """What happens at the cycle's end."""

    type: str
    effective_at: str | None
    plan_id: NotRequired[str]
    name: NotRequired[str]
    period_amount: NotRequired[str]
    included_credit: NotRequired[str]
    payment_id: NotRequired[str]
    """What paid for it already; without it, the change is charged for when it happens."""


class SubscriptionView(TypedDict):
    """A subscription as the API shows it."""

    subscription_id: str
    plan_id: str
    status: str
    auto_top_up_bundle_id: str | None
    started_at: str
    cancelled_at: str | None
    cycle_start_at: str | None
    cycle_end_at: str | None
    plan: TermsView
    credits: CreditsView
    pending_change: ChangeView | None


def view(row: SubscriptionRow) -> SubscriptionView:
    """A subscription as the API shows it."""
    return {
        "subscription_id": row.subscription_id,
        "plan_id": row.plan_id,
        "status": row.status,
        "auto_top_up_bundle_id": row.top_up_bundle_id,
        "started_at": time_text(row.started_at),
        "cancelled_at": _time(row.cancelled_at),
        "cycle_start_at": time_text(row.cycle_start_at),
        "cycle_end_at": time_text(row.cycle_end_at),
        "plan": {
            "name": row.name,
            "period_amount": format_e10(row.period_amount_e10),
            "included_credit": format_e10(row.included_credit_e10),
            "billing_interval": row.billing_interval,
            "rollover_type": row.rollover_type,
            "bundle_rollover_type": row.bundle_rollover_type,
        },
        "credits": {
            "total_remaining": format_e10(row.total_e10),
            "cycle_remaining": format_e10(row.cycle_e10),
            "bundle_remaining": format_e10(row.bundle_e10),
        },
        "pending_change": _change(row),
    }


def _change(row: SubscriptionRow) -> ChangeView | None:
    if row.pending_type is None or row.status != "active":
        return None
    shown: ChangeView = {"type": row.pending_type, "effective_at": time_text(row.cycle_end_at)}
    if row.pending_plan_id is not None and row.next_name is not None:
        shown["plan_id"] = row.pending_plan_id
        shown["name"] = row.next_name
        shown["period_amount"] = format_e10(row.next_amount_e10 or 0)
        shown["included_credit"] = format_e10(row.next_credit_e10 or 0)
    if row.pending_payment_id is not None:
        shown["payment_id"] = row.pending_payment_id
    return shown


def _time(at: datetime | None) -> str | None:
    return None if at is None else time_text(at)
