"""``POST /v1/quotes``: whether a customer can afford a call, or many of them, or an amount.

Asked before an agent loop starts; nothing is held, sent or charged. `hold` is what the calls hold
when they start, by the very rule that admits them (`rules/holding.py`). `ceiling` is what they hold
where they cannot be cut off: the bound of the input and the whole output cap, at the highest rate
of any tier. `input_estimate` is what their input is likely to be charged. A call is affordable when
the ceiling is covered by the credit that nobody else holds (and by the overdraft of a `soft`
meter).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated
from urllib.parse import quote as percent_encode

from pydantic import Field
from typing_extensions import TypedDict

from lava_adapters.contract import Ask, AskError
from lava_proxy.core.errors import LavaError
from lava_proxy.core.money import format_e10
from lava_proxy.core.providers import named_hosts
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.fields import Body, Cost, Name, customer_named, read_fields, refuse
from lava_proxy.manage.idempotency import anew
from lava_proxy.manage.text import exact_json
from lava_proxy.rules.entitlement import tier_cycle
from lava_proxy.rules.gauge import FREE, gauge
from lava_proxy.rules.holding import Wanted, check_bounded, hold_on_credit, price_for
from lava_proxy.rules.quote import OutputLimits, Quote, likely_inputs
from lava_proxy.rules.settlement import Meter
from lava_proxy.store import balance as store
from lava_proxy.wire.target import TARGET_MAX_BYTES, check_path, parse_target

CALLS_MAX = 1_000_000


class NewQuote(Body):
    """Give `url` (and `body`), or `amount`; neither for a meter per request."""

    customer_id: Name | None = None
    connection_id: Name | None = None
    meter_slug: Name
    url: Annotated[str, Field(max_length=TARGET_MAX_BYTES)] | None = None
    body: dict[str, object] | None = None
    method: Annotated[str, Field(pattern="^[A-Z]{1,16}$")] | None = None
    calls: Annotated[int, Field(ge=1, le=CALLS_MAX)] = 1
    amount: Cost | None = None


class QuoteView(TypedDict):
    """What the calls may cost together, and what each may make."""

    affordable: bool
    input_estimate: str
    ceiling: str
    hold: str
    available: str
    max_output_tokens_affordable: int | None
    price_version: str | None


@dataclass(frozen=True, slots=True)
class _Price:
    """One call: amounts in 10^-10 USD, and what turns money into output."""

    input_e10: int
    ceiling_e10: int
    hold_e10: int
    ceiling: Quote | None = None
    version: str | None = None

    def outputs(self, available_e10: int) -> int | None:
        """Output tokens per choice that the money covers; None where they are not what is paid."""
        plan = self.ceiling
        if plan is None or plan.gauge.kind != "tokens" or not plan.gauge.per_output_e18:
            return None
        return plan.outputs(available_e10)


async def create(desk: Desk, call: Call) -> Answer:
    """Answer for the calls together; `max_output_tokens_affordable` is for each of them."""
    body = read_fields(NewQuote, call)
    return await anew(desk, call, lambda: _quote(desk, call, body))


async def _quote(desk: Desk, call: Call, body: NewQuote) -> Answer:
    name = customer_named({"customer_id": body.customer_id, "connection_id": body.connection_id})
    if name is None:
        refuse("customer_id", "is required")
    customer = await desk.customer(call, name)
    meter = await desk.meter(call, body.meter_slug)
    tier_cycle(call.known.merchant, customer, meter, desk.books.now())
    one = _price(desk, body, meter)
    async with desk.reading() as conn:
        balance = await store.balance(conn, customer.customer_id)
    available_e10 = balance.available_e10 + _idle_here_e10(desk, customer.customer_id)
    usable_e10 = available_e10 + meter.debt_e10
    ceiling_e10 = one.ceiling_e10 * body.calls
    view: QuoteView = {
        "affordable": usable_e10 >= ceiling_e10,
        "input_estimate": format_e10(one.input_e10 * body.calls),
        "ceiling": format_e10(ceiling_e10),
        "hold": format_e10(one.hold_e10 * body.calls),
        "available": format_e10(available_e10),
        "max_output_tokens_affordable": one.outputs(max(0, usable_e10) // body.calls),
        "price_version": one.version,
    }
    return answer(view)


def _idle_here_e10(desk: Desk, owner_id: str) -> int:
    """Credit that this worker has leased and no call uses."""
    leases = desk.books.leases
    account = leases.accounts.get(owner_id)
    return max(0, account.free_e10) if account is not None and leases.in_time(account) else 0


def _price(desk: Desk, body: NewQuote, meter: Meter) -> _Price:
    if body.url is not None:
        if body.amount is not None:
            refuse("amount", "goes without url")
        return _call_price(desk, body, body.url, meter)
    for field, value in (("body", body.body), ("method", body.method)):
        if value is not None:
            refuse(field, "goes with url")
    if body.amount is not None:
        return _Price(0, body.amount, body.amount)
    if meter.tariff.rate_type == "fixed" and meter.tariff.unit == "requests":
        flat = gauge(meter.tariff, None, text_only=True) or FREE
        once_e10 = flat.bound_e10(0, 0)
        return _Price(0, once_e10, once_e10)
    refuse("url", f"is required by the meter {meter.slug}, unless there is an amount")


def _call_price(desk: Desk, body: NewQuote, url: str, meter: Meter) -> _Price:
    sent = b"" if body.body is None else exact_json(body.body)
    provider_id, ask = _ask(desk, url, body.method or "POST", sent)
    wanted = Wanted(
        ask,
        provider_id,
        len(sent),
        desk.books.now(),
        desk.books.prices.of(meter.merchant_id),
        OutputLimits.of(desk.books.settings),
        free=ask.free,
        longest_seen=desk.books.learned.longest(provider_id, ask.model or ""),
    )
    price = price_for(wanted, meter.unpriced)
    plan = hold_on_credit(wanted, meter)
    check_bounded(plan)
    most = hold_on_credit(replace(wanted, ask=replace(ask, stream=False)), meter)
    likely = likely_inputs(ask, plan.gauge)
    return _Price(
        plan.gauge.bound_e10(likely, 0),
        most.want_e10,
        plan.want_e10,
        most,
        price.version if price else None,
    )


def _ask(desk: Desk, url: str, method: str, sent: bytes) -> tuple[str, Ask]:
    """The provider behind a URL, and what the request asks of it; through the gateway's gate."""
    hosts = named_hosts(desk.registry, desk.books.settings)
    encoded = percent_encode(url, safe="", errors="strict").encode()
    target = parse_target(b"/v1/forward", b"u=" + encoded, plain_hosts=hosts)
    place = desk.registry.at(target.host, target.port)
    provider = place[1] if place else None
    found = None
    if provider is not None:
        check_path(target.path, encoded_slash=provider.encoded_slash)
        found = provider.route(method, target.path)
    if provider is None or found is None:
        raise LavaError("forward_endpoint_not_supported", f"{method} {url:.200} cannot be called")
    adapter = desk.registry.adapter(provider, found[0])
    try:
        ask = adapter.ask(method, target.path, target.query, "application/json", sent)
        return provider.id, provider.named(ask, *found)
    except AskError as error:
        refuse(f"body.{error.path}" if error.path else "body", str(error))


ROUTES = (
    Route(
        "POST",
        "quotes",
        create,
        answer=QuoteView,
        body=NewQuote,
        errors=(
            "not_found",
            "forward_endpoint_not_supported",
            "model_unpriced",
            "meter_not_on_plan",
            "unbounded_call",
        ),
    ),
)
