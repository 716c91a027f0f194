"""``POST /v1/payments/{id}/confirm``: a payment that waits for its payer, with the payer there.

Off-session a bank may want to see the payer (3-D Secure). The same charge is confirmed again, so a
worker that asks for it at the same moment charges nothing more: where there is no charge yet, both
ask under the same attempt. What comes of it is told by the provider's message, or found by the
worker's next try.
"""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import Body, Name, PageUrl, read_fields
from lava_proxy.manage.idempotency import once_apart
from lava_proxy.payments.seam import ChargeAnswer, ChargeAsk
from lava_proxy.store import payers, payment_events, payments
from lava_proxy.store.payments import PaymentRow


class Confirmation(Body):
    """Where the payer's bank leads back to; which means of payment, if not the default."""

    return_url: PageUrl
    payment_method_id: Name | None = None


class ConfirmView(TypedDict):
    """`requires_action`: send the payer to `redirect_url`."""

    payment_id: str
    status: Literal["succeeded", "requires_action", "pending"]
    redirect_url: NotRequired[str]


async def confirm(desk: Desk, call: Call) -> Answer:
    """Charge a renewal or top-up with its payer there."""
    body = read_fields(Confirmation, call)
    return await once_apart(desk, call, lambda _: _confirm(desk, call, body))


async def _confirm(desk: Desk, call: Call, body: Confirmation) -> Answer:
    async with desk.reading() as conn:
        row = await payments.find(conn, call.merchant_id, call.params[0])
        if row is None:
            raise no_such("payment")
        payer_ref = None
        if row.customer_id is not None:
            payer_ref = await payers.payer_ref(conn, row.customer_id, row.provider)
    if row.status == "succeeded":
        return answer(_view(row, ChargeAnswer("succeeded")))
    if row.purpose not in payments.BY_WORKERS or row.status not in ("pending", "requires_action"):
        raise LavaError("conflict", f"this payment is {row.status} and not waiting for its payer")
    if row.provider != desk.payments.name:
        raise LavaError("conflict", "this payment was never asked for")
    made = await desk.payments.charge(
        ChargeAsk(
            payment_id=row.payment_id,
            merchant_id=call.merchant_id,
            customer_id=row.customer_id,
            payer_ref=payer_ref,
            amount_e10=row.amount_e10,
            description="Confirmed by the payer",
            payment_method_id=body.payment_method_id,
            payer_present=True,
            provider_ref=row.provider_ref,
            return_url=body.return_url,
            attempt=row.attempts + 1,
        )
    )
    await _note(desk, row, made)
    if made.outcome == "declined":
        details: dict[str, object] = {"payment_id": row.payment_id, "reason": made.code}
        raise LavaError("payment_declined", made.message, details=details)
    return answer(_view(row, made))


async def _note(desk: Desk, row: PaymentRow, made: ChargeAnswer) -> None:
    """What is paid is delivered; a decline here costs none of the worker's tries."""
    async with desk.writing() as conn:
        if made.provider_ref is not None:
            await payment_events.note_ref(conn, row.payment_id, made.provider_ref)
        if made.outcome == "succeeded":
            now = desk.books.now()
            await payments.succeeded(conn, row.payment_id, made.provider_ref, now)
    if made.outcome == "succeeded" and row.customer_id is not None:
        desk.books.directory.changed("customers", row.customer_id)
        desk.books.leases.credit_changed(row.customer_id)


def _view(row: PaymentRow, made: ChargeAnswer) -> ConfirmView:
    status: Literal["succeeded", "requires_action", "pending"] = "pending"
    if made.outcome in ("succeeded", "requires_action"):
        status = "succeeded" if made.outcome == "succeeded" else "requires_action"
    view: ConfirmView = {"payment_id": row.payment_id, "status": status}
    if made.redirect_url is not None:
        view["redirect_url"] = made.redirect_url
    return view


ROUTES = (
    Route(
        "POST",
        "payments/*/confirm",
        confirm,
        answer=ConfirmView,
        body=Confirmation,
        errors=("conflict", "payment_declined"),
    ),
)
