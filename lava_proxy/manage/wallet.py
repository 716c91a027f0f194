"""``/v1/wallet``: the money out of which the merchant's managed-key calls are paid, and paying in.

Paying in is a payment: its row is written before anybody is asked, and its id comes from the
Idempotency-Key, so a repeat after a crash asks for the same payment and is delivered once. The test
mode has a wallet of its own; what is paid into it was never money and covers no call.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import AfterValidator
from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError, unavailable
from lava_proxy.core.ids import id_from, new_id, wallet_id_of
from lava_proxy.core.money import E10, format_e10
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.fields import Amount, Body, Name, PageUrl, read_fields
from lava_proxy.manage.idempotency import once_apart
from lava_proxy.payments.seam import ChargeAnswer, ChargeAsk, PaymentsDown
from lava_proxy.rules.limits import wallet_account
from lava_proxy.store import payers, wallets
from lava_proxy.store import payments as store
from lava_proxy.store.payments import PaymentRow, Retry

FUND_MIN_E10 = 10 * E10
FUND_MAX_E10 = 10_000 * E10


def _fundable(amount_e10: int) -> int:
    if not FUND_MIN_E10 <= amount_e10 <= FUND_MAX_E10:
        raise ValueError("must be from 10 to 10000")
    return amount_e10


class Funding(Body):
    """How much, and by which means of payment; without one the default, or by hand."""

    amount: Annotated[Amount, AfterValidator(_fundable)]
    payment_method_id: Name | None = None
    return_url: PageUrl | None = None
    """Where the payer's bank leads back to (3-D Secure), if not to `LAVA_PUBLIC_URL`."""


class WalletView(TypedDict):
    """What was paid in, less what managed-key calls cost. Negative where nothing enforces it."""

    wallet_id: str
    balance: str


class FundView(TypedDict):
    """`requires_action` without a `redirect_url`: the operator confirms the payment by hand."""

    status: Literal["completed", "requires_action"]
    payment_id: str
    balance: NotRequired[str]
    redirect_url: NotRequired[str]


async def retrieve(desk: Desk, call: Call) -> Answer:
    """The merchant's wallet."""
    balance = await _balance(desk, call)
    wallet_id = wallet_id_of(call.merchant_id, test=call.test)
    return answer(WalletView(wallet_id=wallet_id, balance=balance))


async def fund(desk: Desk, call: Call) -> Answer:
    """Pay money into the wallet."""
    body = read_fields(Funding, call)
    desk.payable([("amount", body.amount)])

    async def work(seed: str | None) -> Answer:
        if seed is None:
            payment_id = new_id("payment", test=call.test)
        else:
            payment_id = id_from("payment", seed, test=call.test)
        payment = await _open(desk, call, payment_id, body.amount)
        told = ChargeAnswer("succeeded")
        if payment.status != "succeeded":
            told = await _charge(desk, call, payment, body)
            await _note(desk, call, payment_id, told)
        return await _shown(desk, call, payment_id, told)

    return await once_apart(desk, call, work)


async def _open(desk: Desk, call: Call, payment_id: str, amount_e10: int) -> PaymentRow:
    """The payment before anybody is asked for it; the one that is there where it was asked for."""
    now = desk.books.now()
    async with desk.writing() as conn:
        await store.open_payment(
            conn,
            payment_id=payment_id,
            merchant_id=call.merchant_id,
            customer_id=None,
            purpose="wallet",
            amount_e10=amount_e10,
            provider=desk.payments.name,
            now=now,
            look_at=desk.books.settings.lookup_after(now),
        )
        row = await store.find(conn, call.merchant_id, payment_id)
    if row is None:
        raise LookupError("a new payment is not there")
    return row


async def _charge(desk: Desk, call: Call, payment: PaymentRow, body: Funding) -> ChargeAnswer:
    async with desk.reading() as conn:
        payer_ref = await payers.payer_ref(conn, call.merchant_id, payment.provider)
    ask = ChargeAsk(
        payment_id=payment.payment_id,
        merchant_id=call.merchant_id,
        customer_id=None,
        payer_ref=payer_ref,
        amount_e10=payment.amount_e10,
        description="Wallet",
        payment_method_id=body.payment_method_id,
        payer_present=True,
        provider_ref=payment.provider_ref,
        return_url=body.return_url,
    )
    try:
        return await desk.payments.charge(ask)
    except PaymentsDown:
        raise unavailable("the payment provider cannot be reached; try again") from None


async def _note(desk: Desk, call: Call, payment_id: str, told: ChargeAnswer) -> None:
    now = desk.books.now()
    async with desk.writing() as conn:
        if told.outcome == "succeeded":
            await store.succeeded(conn, payment_id, told.provider_ref, now)
        elif told.outcome == "pending":
            look_at = desk.books.settings.lookup_after(now)
            await store.wait_for_provider(conn, payment_id, told.provider_ref, look_at)
        else:
            await store.failed(
                conn,
                payment_id,
                now,
                Retry(0, 0.0),
                ref=told.provider_ref,
                code=told.code,
                message=told.message,
                needs_action=told.outcome == "requires_action",
            )
    if told.outcome == "succeeded":
        desk.books.leases.credit_changed(wallet_account(call.merchant_id))


async def _shown(desk: Desk, call: Call, payment_id: str, told: ChargeAnswer) -> Answer:
    if told.outcome == "declined":
        details: dict[str, object] = {"payment_id": payment_id, "reason": told.code or "declined"}
        raise LavaError("payment_declined", told.message, details=details)
    done = told.outcome == "succeeded"
    view: FundView = {
        "status": "completed" if done else "requires_action",
        "payment_id": payment_id,
    }
    if done:
        view["balance"] = await _balance(desk, call)
    elif told.redirect_url:
        view["redirect_url"] = told.redirect_url
    return answer(view)


async def _balance(desk: Desk, call: Call) -> str:
    async with desk.reading() as conn:
        found = await wallets.find(conn, call.merchant_id, test=call.test)
    return format_e10(found.balance_e10)


ROUTES = (
    Route("GET", "wallet", retrieve, answer=WalletView),
    Route("POST", "wallet/fund", fund, answer=FundView, body=Funding, errors=("payment_declined",)),
)
