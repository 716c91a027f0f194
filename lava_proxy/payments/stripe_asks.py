"""What Stripe is asked for, in its own words: payment intents and Checkout pages."""

from __future__ import annotations

from typing import Any

from lava_proxy.payments import stripe_objects as objects
from lava_proxy.payments.seam import ChargeAsk, CheckoutAsk


def intent(ask: ChargeAsk, method: str) -> dict[str, Any]:
    """A charge of a card on file, made and confirmed at once."""
    return {
        "amount": objects.cents(ask.amount_e10),
        "currency": objects.CURRENCY,
        "customer": ask.payer_ref,
        "payment_method": method,
        "payment_method_types": ["card"],
        "confirm": True,
        "description": ask.description[:500],
        "metadata": objects.marks(ask.payment_id, ask.customer_id or ask.merchant_id),
        **presence(ask),
    }


def presence(ask: ChargeAsk) -> dict[str, Any]:
    """Who is there may be sent to their bank's page; who is not may not."""
    if ask.payer_present and ask.return_url:
        return {"return_url": ask.return_url}
    return {"off_session": True}


def page(ask: CheckoutAsk) -> dict[str, Any]:
    """What Stripe Checkout is asked for."""
    payer: dict[str, Any] = {"customer_creation": "always"}
    if ask.payer_ref is not None:
        payer = {"customer": ask.payer_ref}
    elif ask.email:
        payer["customer_email"] = ask.email
    common: dict[str, Any] = {
        "client_reference_id": ask.reference,
        "payment_method_types": ["card"],
        "success_url": ask.success_url,
        "cancel_url": ask.cancel_url,
        **payer,
    }
    if ask.amount_e10 is None:
        marks = objects.marks(None, ask.owner_id)
        setup = {"metadata": marks, "description": ask.description}
        return {"mode": "setup", "metadata": marks, "setup_intent_data": setup, **common}
    marks = objects.marks(ask.reference, ask.owner_id)
    price = {
        "currency": objects.CURRENCY,
        "unit_amount": objects.cents(ask.amount_e10),
        "product_data": {"name": ask.description},
    }
    kept = {
        "setup_future_usage": "off_session",
        "metadata": marks,
        "description": ask.description,
    }
    return {
        "mode": "payment",
        "line_items": [{"quantity": 1, "price_data": price}],
        "metadata": marks,
        "payment_intent_data": kept,
        **common,
    }
