"""Quotes: can this customer afford this call, before making it? Nothing is held or sent."""

from __future__ import annotations

from typing import Annotated

import orjson
from pydantic import Field, StringConstraints

from lava_adapters.contract import Ask, AskError
from lava_proxy.core.errors import LavaError
from lava_proxy.core.money import format_e10
from lava_proxy.manage import customers
from lava_proxy.manage.context import JSON, Body, Context, Route, invalid
from lava_proxy.manage.shape import amount_of
from lava_proxy.rules.gauge import FREE, UNBOUNDED, Gauge, gauge
from lava_proxy.rules.quote import OutputLimits, Quote, input_units, quote
from lava_proxy.rules.settlement import Meter
from lava_proxy.store import credit as store
from lava_proxy.wire.target import Target, check_path, parse_target

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class AskQuote(Body):
    """`POST /v1/quotes`: a call (url and body), a number of calls, or a plain amount."""

    customer_id: Name
    meter_slug: Name
    url: Annotated[str, StringConstraints(max_length=8192)] | None = None
    body: dict[str, object] | None = None
    method: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3,10}$")] = "POST"
    calls: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    amount: str | None = None


async def create(ctx: Context) -> JSON:
    """What the call would hold, at most, and whether there is so much."""
    body = ctx.body(AskQuote)
    meter = await ctx.books.directory.meter(ctx.merchant_id, body.meter_slug)
    if meter is None:
        raise LavaError("not_found", "There is no such meter.")
    async with ctx.books.database.connection() as conn:
        ctx.conn = conn
        customer = await customers.find(ctx, body.customer_id)
        balance = await store.balance(conn, customer["customer_id"])
    available_e10 = max(0, balance.available_e10 + balance.held_e10)
    if meter.enforcement == "soft":
        available_e10 = max(0, available_e10 + meter.overdraft_e10 - balance.debt_e10)
    ask, of, version = _gauge(ctx, body, meter)
    raw = orjson.dumps(body.body) if body.body is not None else b""
    plan = quote(ask, of, "strict", _limits(ctx), body_bytes=len(raw))
    ceiling_e10 = plan.want_e10 * body.calls
    if body.amount is not None:
        ceiling_e10 = amount_of(body.amount, "amount")
    return {
        "affordable": available_e10 >= ceiling_e10,
        "input_estimate": input_units(ask, of, body_bytes=len(raw), bound=False),
        "ceiling": format_e10(ceiling_e10),
        "available": format_e10(available_e10),
        "max_output_tokens_affordable": _affordable(plan, of, available_e10 // body.calls),
        "price_version": version,
    }


def _affordable(plan: Quote, of: Gauge, each_e10: int) -> int | None:
    """Output tokens per choice that the money covers; None where output costs nothing."""
    tokens = of.affordable_outputs(each_e10, plan.inputs)
    return None if tokens >= UNBOUNDED else tokens // plan.choices


def _gauge(ctx: Context, body: AskQuote, meter: Meter) -> tuple[Ask, Gauge, str | None]:
    """What the call asks, its bound, and the price version where a price is needed."""
    if body.url is None:
        found = gauge(meter.tariff, None, text_only=True)
        return Ask(makes_output=False), found or FREE, None
    target = parse_target(b"/v1/forward", b"u=" + body.url.encode("utf-8"))
    provider_id, ask = _ask(ctx, body, target)
    rates = ctx.books.catalog.rates(provider_id, ask.model or "", ctx.now())
    found = gauge(meter.tariff, rates, text_only=not ask.media_tokens)
    if found is None:
        raise LavaError("model_unpriced", f"There is no known price for {ask.model!r}.")
    return ask, found, None if rates is None else rates.version


def _ask(ctx: Context, body: AskQuote, target: Target) -> tuple[str, Ask]:
    provider = ctx.registry.by_host(target.host)
    if provider is None:
        raise LavaError("forward_endpoint_not_supported", f"{target.host} is not a provider")
    check_path(target.path, encoded_slash=provider.encoded_slash)
    found = provider.route(body.method, target.path)
    if found is None:
        raise LavaError(
            "forward_endpoint_not_supported", f"{body.method} {target.path} may not be called"
        )
    raw = orjson.dumps(body.body) if body.body is not None else b""
    adapter = ctx.registry.adapter(provider, found[0])
    try:
        ask = adapter.ask(body.method, target.path, target.query, "application/json", raw)
    except AskError as error:
        raise invalid(f"body.{error.path}" if error.path else "body", str(error)) from None
    return provider.id, ask


def _limits(ctx: Context) -> OutputLimits:
    settings = ctx.books.settings
    return OutputLimits(
        settings.output_slice_tokens,
        settings.output_floor_tokens,
        settings.output_default_tokens,
    )


ROUTES = (Route("POST", "/quotes", create),)
