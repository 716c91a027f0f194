"""Running streams and auto top-up, end to end: the stream goes on over it, and is cut where the
month's cap is reached or nobody says that the money is there."""

from __future__ import annotations

import pytest
from gateway_kit import CHAT, TOKEN_E10, Gate, Payer, fresh_model
from test_budget import asking, cut_event, one_by_one, shown

from lava_proxy.core.ids import new_id
from lava_proxy.net.simulated import Script
from lava_proxy.store import customers, payments, plans, subscriptions
from lava_proxy.store.ledger import announce_credit
from lava_proxy.store.place import TOP
from lava_proxy.store.plans import BundleRow, PlanRow

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"exact_tokens": False, "top_up_monthly_max": 2}
USD = 10**10
BUNDLE_TOKENS = 500


async def subscribed(gate: Gate, *, test: bool) -> Payer:
    """A customer with 100 tokens, on a free plan that buys `BUNDLE_TOKENS` more for a dollar."""
    merchant = await gate.payer("0")
    payer = Payer(merchant.secret, merchant.merchant_id, new_id("customer", test=test), 10**7)
    await gate._customer(payer)
    now, plan_id = gate.gateway.books.now(), new_id("plan")
    bundle = BundleRow(new_id("credit_bundle"), plan_id, "b", USD, BUNDLE_TOKENS * TOKEN_E10, now)
    wanted = PlanRow(
        plan_id=plan_id,
        merchant_id=payer.merchant_id,
        name="p",
        period_amount_e10=0,
        included_credit_e10=0,
        billing_interval="month",
        rollover_type="none",
        bundle_rollover_type="full",
        default_top_up_bundle_id=bundle.credit_bundle_id,
        created_at=now,
        bundles=(bundle,),
    )
    async with gate.database.transaction() as conn:
        await plans.create(conn, wanted, ("m",))
        await subscriptions.start(conn, customer_id=payer.customer_id, plan_id=plan_id, now=now)
    return payer


async def bought(gate: Gate, payer: Payer) -> list[payments.PaymentRow]:
    async with gate.database.connection() as conn:
        return await payments.page(conn, payer.merchant_id, payer.customer_id, TOP, 100)


async def test_a_stream_goes_on_over_top_ups_up_to_the_cap(gate: Gate) -> None:
    payer, model = await subscribed(gate, test=True), fresh_model()
    gate.sim.script[model] = Script(one_by_one(5000, 0.0005))
    answer = await gate.call(CHAT, asking(model), payer)
    assert cut_event(answer.body)["code"] == "budget_exhausted"
    row = await gate.row(payer)
    assert row["outcome"] == "cut_off"
    assert row["output_tokens"] == shown(answer.body)
    assert row["input_tokens"] + row["output_tokens"] == 100 + 2 * BUNDLE_TOKENS
    made = await bought(gate, payer)
    assert [payment.status for payment in made] == ["succeeded"] * 2
    refused = await gate.call(CHAT, asking(model), payer)
    assert (refused.status, refused.error()["code"]) == (402, "insufficient_credit")
    assert len(await bought(gate, payer)) == 2


async def test_a_customers_own_cap_blocks_and_a_higher_one_lets_it_go_on(gate: Gate) -> None:
    payer, model = await subscribed(gate, test=True), fresh_model()
    gate.sim.script[model] = Script(one_by_one(200, 0.0005))
    for cap_e10, status in ((0, 402), (USD, 200)):
        async with gate.database.transaction() as conn:
            await customers.update(
                conn, payer.merchant_id, payer.customer_id, {"top_up_max_e10": cap_e10}
            )
            await announce_credit(conn, payer.customer_id)
        if not cap_e10:  # what the plan gave is used up
            await gate.call(CHAT, asking(model), payer)
        answer = await gate.call(CHAT, asking(model), payer)
        assert answer.status == status
        if status == 402:
            assert answer.error()["code"] == "insufficient_credit"
    assert len(await bought(gate, payer)) == 1


async def test_a_stream_is_cut_when_the_money_does_not_come(gate: Gate) -> None:
    payer, model = await subscribed(gate, test=False), fresh_model()
    gate.sim.script[model] = Script(one_by_one(400, 0.0005))
    answer = await gate.call(CHAT, asking(model), payer)
    assert cut_event(answer.body)["code"] == "budget_exhausted"
    (payment,) = await bought(gate, payer)
    assert payment.status == "pending"  # by hand: nobody has said yet that it is paid
    async with gate.database.transaction() as conn:
        await payments.succeeded(conn, payment.payment_id, None, gate.gateway.books.now())
    assert (await gate.call(CHAT, asking(model), payer)).whole
