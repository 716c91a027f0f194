"""The form of the checkout page: read from its bytes, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from lava_proxy.core.errors import LavaError
from lava_proxy.pages.state import Offer
from lava_proxy.rules.contact import EMAIL_MAX_CHARS, NAME_MAX_CHARS, is_email
from lava_proxy.store.checkout_sessions import Buyer, SessionRow
from lava_proxy.wire.problem import storable

FORM_TYPE = b"application/x-www-form-urlencoded"
FORM_MAX_BYTES = 8 * 1024
FIELDS_MAX = 16


def read_form(content_type: bytes, body: bytes) -> Mapping[str, str]:
    """The fields of a form; 415 for what is none, 400 for what cannot be read."""
    if content_type.partition(b";")[0].strip().lower() != FORM_TYPE:
        raise LavaError("unsupported_media_type", "send the form as a browser does")
    try:
        text = body.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError:
        raise LavaError("invalid_request", "the form cannot be read") from None
    return dict(pairs)


def asks_who(row: SessionRow) -> bool:
    """Whether the page asks who buys: nobody is named, and no payment was begun. From then on a
    provider knows the buyer, and must be asked for the very same payment again."""
    return row.customer_id is None and row.payment_id is None


def buyer_in(row: SessionRow, form: Mapping[str, str]) -> Buyer:
    """Who fills the form in, or did."""
    if not asks_who(row):
        return Buyer(row.buyer_name or "", row.buyer_email or "")
    return Buyer(form.get("name", "").strip(), form.get("email", "").strip())


def mistakes(buyer: Buyer) -> dict[str, str]:
    """What is wrong, by field, as the person reads it."""
    wrong = {}
    if not buyer.email:
        wrong["email"] = "Enter your email address."
    elif len(buyer.email) > EMAIL_MAX_CHARS:
        wrong["email"] = f"The email address is over {EMAIL_MAX_CHARS} characters."
    elif not is_email(buyer.email) or not storable(buyer.email):
        wrong["email"] = "Enter an email address such as name@example.com."
    if len(buyer.name) > NAME_MAX_CHARS:
        wrong["name"] = f"The name is over {NAME_MAX_CHARS} characters."
    elif not storable(buyer.name):
        wrong["name"] = "The name has characters that cannot be stored."
    return wrong


def same_terms(form: Mapping[str, str], offer: Offer) -> bool:
    """Whether the payer agreed to this, and not to what was sold a while ago."""
    return form.get("terms") == offer.terms
