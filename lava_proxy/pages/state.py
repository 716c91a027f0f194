"""What a checkout session is at, and what it sells right now: decided from its row and the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from lava_proxy.core.money import format_e10
from lava_proxy.rules.checkout import Refusal, keeps_plan, refusal, waits_for_cycle_end
from lava_proxy.store.checkout_sessions import SessionRow

State = Literal["open", "paying", "done", "declined", "expired", "unavailable"]

CAN_PAY: tuple[State, ...] = ("open", "declined")
PAGE_LIVES = timedelta(days=1)
"""So long a provider's own page may still be paid after our session's time; then nobody waits."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What pressing the button buys."""

    amount_e10: int
    """Due now."""
    later: bool = False
    """A downgrade: the change waits for the end of the cycle, and so does the price, unless a
    payment of it was begun before."""
    kept: bool = False
    """The customer is on this plan and was about to leave it: the price goes on as it was."""
    credit_e10: int = 0
    """What it gives, in every cycle where it is a plan."""
    why_not: Refusal | Literal["no_customer"] | None = None

    @property
    def terms(self) -> str:
        """What the payer saw; a form that was filled in for other terms is not taken."""
        when = " kept" if self.kept else " later" if self.later else ""
        return f"{format_e10(self.amount_e10)}{when} for {format_e10(self.credit_e10)}"


def offer_of(row: SessionRow, now: datetime) -> Offer:
    """What the session sells. A payment that was begun keeps its amount."""
    plan = row.checkout_mode == "subscription"
    price_e10 = row.period_amount_e10 if plan else row.cost_e10
    credit_e10 = (row.included_credit_e10 if plan else row.credit_e10) or 0
    why_not = refusal(
        row.checkout_mode,
        plan_id=row.plan_id,
        credit_bundle_id=row.credit_bundle_id,
        bundle_plan_id=row.bundle_plan_id,
        active_plan_id=row.active_plan_id,
        plan_ends=row.plan_ends or (row.cycle_end_at is not None and row.cycle_end_at <= now),
    )
    if row.customer_gone:
        return Offer(0, why_not="no_customer")
    amount_e10 = price_e10 or 0
    later = plan and waits_for_cycle_end(
        active_amount_e10=row.active_amount_e10,
        amount_e10=amount_e10,
        cycle_end_at=row.cycle_end_at,
        past_due=row.past_due,
        now=now,
    )
    if row.payment_amount_e10 is not None:
        return Offer(row.payment_amount_e10, later, False, credit_e10, why_not)
    kept = plan and keeps_plan(
        plan_id=row.plan_id,
        active_plan_id=row.active_plan_id,
        will_leave=row.plan_ends,
        cycle_end_at=row.cycle_end_at,
        past_due=row.past_due,
        now=now,
    )
    return Offer(0 if later or kept else amount_e10, later, kept, credit_e10, why_not)


def state_of(row: SessionRow, now: datetime) -> State:
    """Where the session is. Money on its way is waited for, also past the session's time; a payment
    that nobody has answered for yet may be asked for again, which pays once."""
    if row.completed_at is not None:
        return "done"
    waits = row.payment_status == "pending" or (
        row.payment_status == "requires_action" and row.redirect_url is not None
    )
    page_is_over = row.redirect_url is not None and row.expires_at + PAGE_LIVES <= now
    if waits and row.answered and not page_is_over:
        return "paying"
    if row.expires_at <= now:
        return "expired"
    if offer_of(row, now).why_not is not None:
        return "unavailable"
    if row.payment_status not in (None, "pending"):
        return "declined"
    return "open"
