"""Admission: may this call run, and with what hold? Answers before the provider hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from lava_adapters.contract import Ask, AskError
from lava_proxy.books.holds import CREDIT, Holds
from lava_proxy.books.leases import Hold
from lava_proxy.core.errors import LavaError
from lava_proxy.core.money import format_e10
from lava_proxy.proxy import limits
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.run import Run
from lava_proxy.rules.entitlement import tier_cycle
from lava_proxy.rules.estimate import input_tokens_estimate
from lava_proxy.rules.gauge import FREE
from lava_proxy.rules.holding import Wanted, check_bounded, hold_on_credit
from lava_proxy.rules.limits import Want
from lava_proxy.rules.settlement import Call
from lava_proxy.wire.target import check_path

OBJECT_TRIES = 5
OBJECT_RETRY_S = 0.1
"""The row that names an object's maker is written with the ledger batch, a moment after the answer
that made it; on another worker we wait for it so long."""


def find_route(gateway: Gateway, run: Run, method: str) -> None:
    """Host, method and path must be in the provider's row; a managed key narrows them further."""
    target, caller = run.target, run.caller
    if target is None or caller is None:
        raise LavaError("internal_error")
    if caller.spend_key is not None and run.shape is None:
        raise LavaError("forbidden", "a spend key cannot call a provider by its URL")
    place = gateway.registry.at(target.host, target.port)
    if place is None:
        raise LavaError(
            "forward_endpoint_not_supported", f"the host {target.host} is not in the provider table"
        )
    run.host, provider = place
    check_path(target.path, encoded_slash=provider.encoded_slash)
    found = provider.route(method, target.path)
    run.managed = caller.token.provider_key is None and run.signed is None
    if found is None or (run.managed and not found[0].managed):
        raise LavaError(
            "forward_endpoint_not_supported",
            f"{method} {target.path} is not an endpoint of {provider.id} that may be called"
            + (" with a managed key" if found else ""),
        )
    if run.signed is not None and not (provider.aws_service and caller.token.provider_key is None):
        raise LavaError(
            "invalid_request",
            "The Authorization header is an AWS signature, and another key goes to this provider.",
        )
    run.provider = provider
    run.route, run.params = found
    run.adapter = gateway.registry.adapter(provider, found[0])


def read_ask(run: Run, method: str, content_type: str, body: bytes) -> None:
    """What the request wants, in the adapter's words."""
    adapter, target, provider, route = run.adapter, run.target, run.provider, run.route
    if adapter is None or target is None or provider is None or route is None:
        raise LavaError("internal_error")
    try:
        ask = adapter.ask(method, target.path, target.query, content_type, body)
    except AskError as error:
        raise unreadable(error) from None
    ask = provider.named(ask, route, run.params)
    # A signed body cannot be changed.
    run.ask = (
        ask if run.signed is None else replace(ask, capable_of_cap=False, capable_of_usage=False)
    )


def unreadable(error: AskError) -> LavaError:
    """The request is wrong in a way that matters to the bill."""
    where = f"{error.path}: " if error.path else ""
    return LavaError("invalid_request", f"{where}{error}")


async def check_objects(gateway: Gateway, run: Run) -> None:
    """Objects that the request names must have been made by the same customer: all customers share
    one managed key, so the provider cannot tell them apart."""
    ask, caller, provider = run.ask, run.caller, run.provider
    if ask is None or not ask.object_ids or not run.managed:
        return
    if caller is None or provider is None:
        raise LavaError("internal_error")
    mine = (
        caller.merchant.merchant_id,
        caller.customer.customer_id if caller.customer else None,
    )
    for object_id in ask.object_ids:
        for attempt in range(OBJECT_TRIES):
            owner = await gateway.books.directory.object_owner(provider.id, object_id)
            if owner is not None or attempt + 1 == OBJECT_TRIES:
                break
            await asyncio.sleep(OBJECT_RETRY_S)
        if owner != mine:
            raise LavaError("not_found", f"there is no object {object_id} of yours")


async def admit(gateway: Gateway, run: Run, method: str, body_bytes: int) -> int | None:
    """Open the hold and write HOLD; answers the output cap to set in the body (None = leave it).

    Raises 402 when the call cannot be paid.
    """
    call, budgets = _known(gateway, run, method)
    caller, holds = run.caller, Holds()
    try:
        caps = await _open(gateway, run, holds, budgets, body_bytes)
        run.seq = gateway.books.admit(call)
    except BaseException:
        holds.give_back()
        raise
    if caller is not None and caller.spend_key is not None:
        gateway.books.key_uses.note(caller.spend_key.spend_key_id, call.created_at)
    run.holds = holds if holds.parts else None
    return min(caps) if caps else None


async def probe(gateway: Gateway, run: Run, method: str, body_bytes: int) -> None:
    """Refuse, before its body has passed, a call that could not be paid as far as it is known: what
    `admit` will open is opened and given back. Of an unknown model only that there is credit."""
    call, budgets = _known(gateway, run, method)
    holds = Holds()
    try:
        if call.model is not None:
            await _open(gateway, run, holds, budgets, body_bytes)
        elif call.customer_id is not None and call.billable:
            gateway.books.condition.refuse_prepaid_if_draining()
            holds.add(CREDIT, await _hold(gateway, run, 1, 1))
    finally:
        holds.give_back()


def admit_refused(gateway: Gateway, run: Run, method: str) -> None:
    """Write HOLD for a call that the provider has answered before it had all of it."""
    run.ask = Ask(free=True, makes_output=False)
    run.seq = gateway.books.admit(_known(gateway, run, method)[0])


def _known(gateway: Gateway, run: Run, method: str) -> tuple[Call, Sequence[Want]]:
    """What is fixed about the call from here on, and the budgets that it needs beside its
    credit."""
    ask, caller, provider, target = run.ask, run.caller, run.provider, run.target
    if ask is None or caller is None or provider is None or target is None:
        raise LavaError("internal_error")
    merchant, customer, meter = caller.merchant, caller.customer, caller.meter
    now = gateway.books.clock.now()
    budgets = limits.wants(gateway, run, now)
    call = run.call = Call(
        request_id=run.request_id,
        merchant_id=merchant.merchant_id,
        holder_id=gateway.books.journal.holder_id,
        owner_id=caller.owner_id,
        customer_id=customer.customer_id if customer else None,
        meter=meter,
        cycle=tier_cycle(merchant, customer, meter, now),
        billable=meter is not None and not caller.token.disable_billing,
        provider=provider.id,
        provider_key_type="managed" if run.managed else "unmanaged",
        model=ask.model,
        endpoint=f"{method} https://{run.host}{target.path}",
        stream=ask.stream,
        created_at=now,
        metadata=run.metadata or None,
        # A background response is charged when its usage is read.
        input_tokens=(
            0
            if ask.free or ask.background
            else input_tokens_estimate(ask.text_bytes, ask.media_tokens)
        ),
        input_characters=ask.input_characters or 0,
        input_ms=ask.input_ms or 0,
        budgets=_booked_on(budgets) if budgets else (),
    )
    return call, budgets


def _booked_on(budgets: Sequence[Want]) -> tuple[tuple[str, str], ...]:
    return tuple((want.kind, want.owner_id) for want in budgets if want.kind != limits.OPEN)


async def _open(
    gateway: Gateway, run: Run, holds: Holds, budgets: Sequence[Want], body_bytes: int
) -> list[int]:
    """Open a hold on each budget; answers the output caps that make them affordable."""
    ask, caller, provider, call = run.ask, run.caller, run.provider, run.call
    if ask is None or caller is None or provider is None or call is None:
        raise LavaError("internal_error")
    books, meter = gateway.books, caller.meter
    wanted = Wanted(
        ask,
        provider.id,
        body_bytes,
        call.created_at,
        books.prices.of(call.merchant_id),
        gateway.limits,
        ask.free or run.reads_object,
        books.learned.longest(provider.id, ask.model or ""),
    )
    plan = hold_on_credit(wanted, meter) if meter is not None and call.billable else None
    run.gauge = FREE if plan is None else plan.gauge
    caps: list[int] = []
    if budgets or caller.spend_key is not None:
        caps = await limits.open_limits(gateway, run, holds, budgets, wanted)
    if caller.customer is not None and plan is not None:
        check_bounded(plan)
        books.condition.refuse_prepaid_if_draining()
        hold = await _hold(gateway, run, plan.least_e10, plan.want_e10)
        holds.add(CREDIT, hold, plan.gauge)
        if (cap := plan.cap_for(hold.amount_e10)) is not None:
            caps.append(cap)
    return caps


async def _hold(gateway: Gateway, run: Run, least_e10: int, want_e10: int) -> Hold:
    caller = run.caller
    if caller is None or caller.customer is None or caller.meter is None:
        raise LavaError("internal_error")
    leases = gateway.books.leases
    account = leases.account(caller.customer.customer_id)
    held = await leases.hold(account, least_e10, want_e10, caller.meter.debt_e10)
    if isinstance(held, Hold):
        return held
    details: dict[str, object] = {
        "required": format_e10(held.required_e10),
        "available": format_e10(held.available_e10),
        "customer_id": caller.customer.customer_id,
        "request_id": run.request_id,
    }
    upgrade_url = caller.merchant.upgrade_url or gateway.settings.upgrade_url
    if upgrade_url:
        details["upgrade_url"] = upgrade_url
    raise LavaError(
        "insufficient_credit",
        f"this call needs {details['required']} USD of credit and {details['available']} is left",
        details=details,
    )
