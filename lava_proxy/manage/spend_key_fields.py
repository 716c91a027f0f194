"""What a body says of a spend key's rules: the fields, their bounds, and the rules with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from lava_proxy.core.money import format_e10
from lava_proxy.manage.fields import UNITS_MAX, Body, Cost, Date, Name, refuse
from lava_proxy.rules.limits import Cycle, Shape
from lava_proxy.store.spend_keys import Rules, Status

LISTED_MAX = 500
RATE_MAX = 1_000_000


def _some(amount_e10: int) -> int:
    if not amount_e10:
        raise ValueError("must be more than zero")
    return amount_e10


Some = Annotated[Cost, AfterValidator(_some)]
Names = Annotated[list[Name], Field(min_length=1, max_length=LISTED_MAX)]
Count = Annotated[int, Field(ge=1, le=UNITS_MAX)]
PerMinute = Annotated[int, Field(ge=1, le=RATE_MAX)]


class MoneyLimit(Body):
    """Provider cost in USD per cycle."""

    amount: Some
    cycle: Cycle


class MoneyLimitView(TypedDict):
    """Provider cost per cycle."""

    amount: str
    cycle: Cycle


def money_limit(amount_e10: int | None, cycle: Cycle | None) -> MoneyLimitView | None:
    """A limit as the API shows it."""
    if amount_e10 is None or cycle is None:
        return None
    return {"amount": format_e10(amount_e10), "cycle": cycle}


class RequestLimit(Body):
    """Calls per cycle."""

    count: Count
    cycle: Cycle


class RateLimit(Body):
    """Calls per minute; `burst` may start at once, as many as `rpm` where it is left out."""

    rpm: PerMinute
    burst: PerMinute | None = None


class SpendKeyFields(Body):
    """What is left out stays; null takes a list, a limit or the expiry away."""

    name: Name | None = None
    status: Status | None = None
    request_shape: Shape | None = None
    allowed_models: Names | None = None
    allowed_providers: Names | None = None
    spend_limit: MoneyLimit | None = None
    request_limit: RequestLimit | None = None
    rate_limit: RateLimit | None = None
    expires_at: Date | None = None


class NewSpendKey(SpendKeyFields):
    """Without lists and limits it may use all models without end, at the wallet's expense."""

    name: Name
    status: Status = "active"
    request_shape: Shape = "openai"


def changed(rules: Rules, body: SpendKeyFields, now: datetime) -> Rules:
    """The rules with what a body names."""
    given, changes = body.model_fields_set, dict[str, object]()
    for name in ("name", "status", "request_shape"):
        if name in given:
            changes[name] = getattr(body, name)
    for name in ("allowed_models", "allowed_providers"):
        if name in given:
            listed = getattr(body, name)
            changes[name] = None if listed is None else tuple(listed)
    if "spend_limit" in given:
        limit = body.spend_limit
        changes["spend_limit_e10"] = limit.amount if limit else None
        changes["spend_cycle"] = limit.cycle if limit else None
    if "request_limit" in given:
        calls = body.request_limit
        changes["request_limit"] = calls.count if calls else None
        changes["request_cycle"] = calls.cycle if calls else None
    if "rate_limit" in given:
        rate = body.rate_limit
        changes["rate_rpm"] = rate.rpm if rate else None
        changes["rate_burst"] = rate.burst if rate else None
    if "expires_at" in given:
        if body.expires_at is not None and body.expires_at <= now:
            refuse("expires_at", "must be in the future")
        changes["expires_at"] = body.expires_at
    return replace(rules, **changes)  # type: ignore[arg-type]
