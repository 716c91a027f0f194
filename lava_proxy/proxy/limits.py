"""Limits beside the customer's credit: which ones a call needs, and opening a hold on each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from lava_proxy.books.holds import Holds
from lava_proxy.books.leases import Refusal
from lava_proxy.core.errors import LavaError
from lava_proxy.core.money import format_e10
from lava_proxy.proxy.caller import Caller
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.run import Run
from lava_proxy.rules.gauge import FREE
from lava_proxy.rules.holding import Wanted, check_bounded, hold_on_cost
from lava_proxy.rules.limits import COST, Limit, SpendKey, Want, wallet_account
from lava_proxy.rules.quote import Quote
from lava_proxy.rules.settlement import Merchant

OPEN = "open"
NONE: Sequence[Want] = ()

USED_UP = "The spend limit of this token is used up."
_CODES = {
    "money": ("spend_limit_exceeded", "Service key spend limit exceeded."),
    "requests": ("request_limit_exceeded", "Service key request limit exceeded."),
    "wallet": ("insufficient_balance", None),
    OPEN: ("rate_limit_exceeded", "Too many calls of this customer run at once."),
}


def wants(gateway: Gateway, run: Run, at: datetime) -> Sequence[Want]:
    """The budgets that a call needs beside the customer's credit, leaf to root."""
    caller, settings = run.caller, gateway.settings
    if caller is None:
        return NONE
    walleted = settings.wallet_enforced and run.managed
    limited = caller.spend_key is not None or caller.token_limit is not None
    if not limited and not settings.customer_concurrency and not walleted:
        return NONE
    found = caller.spend_key.budgets(at) if caller.spend_key else []
    if caller.token_limit is not None:
        found.append(caller.token_limit.budget(at))
    if settings.customer_concurrency and caller.customer is not None:
        found.append(_open_calls(caller, settings.customer_concurrency))
    if walleted:
        found.append(_wallet(caller.merchant))
    return found


async def open_limits(
    gateway: Gateway, run: Run, holds: Holds, budgets: Sequence[Want], wanted: Wanted
) -> list[int]:
    """Open a hold on each; answers the output caps that make them affordable. Raises when one
    refuses; the caller gives back what is in `holds` then."""
    caller = run.caller
    if caller is None:
        raise LavaError("internal_error")
    caps: list[int] = []
    if caller.spend_key is not None:
        await _permit(gateway, caller.spend_key, holds)
    for want in budgets:
        if want.limit is None:
            continue
        gateway.books.condition.refuse_prepaid_if_draining()
        if want.kind in COST:
            plan = hold_on_cost(wanted, caller.meter)
            check_bounded(plan)
            held_e10 = await _take(gateway, caller, want, want.limit, holds, plan)
            if (cap := plan.cap_for(held_e10)) is not None:
                caps.append(cap)
        else:
            await _take(gateway, caller, want, want.limit, holds, None)
    return caps


async def _take(
    gateway: Gateway, caller: Caller, want: Want, limit: Limit, holds: Holds, plan: Quote | None
) -> int:
    leases = gateway.books.leases
    account = leases.account(want.owner_id)
    account.limit = limit
    least, most = (plan.least_e10, plan.want_e10) if plan else (1, 1)
    held = await leases.hold(account, least, most, 0)
    if isinstance(held, Refusal):
        raise _denied(gateway, caller, want, held)
    holds.add(want.kind, held, plan.gauge if plan else FREE)
    return held.amount_e10


def _denied(gateway: Gateway, caller: Caller, want: Want, refusal: Refusal) -> LavaError:
    code, message = _CODES[want.kind]
    if want.kind == "money" and caller.spend_key is None:
        message = USED_UP
    headers = {"retry-after": "1"} if want.kind == OPEN else {}
    if want.kind == "requests" and want.ends_at is not None:
        left_s = (want.ends_at - gateway.books.now()).total_seconds()
        headers = {"retry-after": str(max(1, math.ceil(left_s)))}
    details: dict[str, object] | None = None
    if want.kind in COST:
        details = {
            "required": format_e10(refusal.required_e10),
            "available": format_e10(refusal.available_e10),
        }
    return LavaError(code, message, details=details, headers=headers)


async def _permit(gateway: Gateway, key: SpendKey, holds: Holds) -> None:
    if key.rate is None:
        return
    taken = await gateway.books.rates.take(f"{key.spend_key_id}:rate", key.rate)
    if isinstance(taken, float):
        raise LavaError(
            "rate_limit_exceeded", headers={"retry-after": str(max(1, math.ceil(taken)))}
        )
    holds.add_permit(taken)


def _open_calls(caller: Caller, most: int) -> Want:
    customer_id = caller.customer.customer_id if caller.customer else ""
    return Want(OPEN, f"{customer_id}:open", Limit(caller.merchant.merchant_id, most))


def _wallet(merchant: Merchant) -> Want:
    return Want("wallet", wallet_account(merchant.merchant_id), Limit(merchant.merchant_id, None))
