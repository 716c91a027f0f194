"""What may be sold to whom, and from when it holds: the same at the API and on the page."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

Refusal = Literal["no_plan", "on_plan", "no_bundle", "without_plan", "other_plan"]
"""No such plan; on it already; no such bundle; bundles are for those on a plan; the bundle is
another plan's."""


def refusal(
    mode: str,
    *,
    plan_id: str | None,
    credit_bundle_id: str | None,
    bundle_plan_id: str | None,
    active_plan_id: str | None,
    plan_ends: bool,
) -> Refusal | None:
    """Why this cannot be sold, None where it can. What is not there, or ended, is None. A plan
    whose cycle is over, or that will be left (`plan_ends`), may be bought by those who are on it.
    """
    if mode == "subscription":
        if plan_id is None:
            return "no_plan"
        return "on_plan" if plan_id == active_plan_id and not plan_ends else None
    if credit_bundle_id is None:
        return "no_bundle"
    if active_plan_id is None:
        return "without_plan"
    return "other_plan" if bundle_plan_id != active_plan_id else None


def keeps_plan(
    *,
    plan_id: str | None,
    active_plan_id: str | None,
    will_leave: bool,
    cycle_end_at: datetime | None,
    past_due: bool,
    now: datetime,
) -> bool:
    """Whether this is the plan that the customer is on and will leave with its cycle's end: who
    stays pays nothing now."""
    if plan_id is None or cycle_end_at is None or past_due or cycle_end_at <= now:
        return False
    return plan_id == active_plan_id and will_leave


def waits_for_cycle_end(
    *,
    active_amount_e10: int | None,
    amount_e10: int,
    cycle_end_at: datetime | None,
    past_due: bool,
    now: datetime,
) -> bool:
    """Whether a change of plan is a downgrade, which costs nothing now and waits for the end of the
    cycle that is paid for. Where the next cycle is owed for already there is nothing to wait for.
    """
    if active_amount_e10 is None or cycle_end_at is None or past_due or cycle_end_at <= now:
        return False
    return amount_e10 < active_amount_e10
