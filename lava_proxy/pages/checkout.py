"""The counter where a checkout session is paid: look, begin, ask the provider, deliver.

A session has one payment. It is written down before the provider is asked and asked for under its
own id, so two tabs, a double click, a crash in between or a second try after silence pay once; what
it pays for is done by `store.payments.succeeded`, once, whoever says that the money is there (this
page, the provider's message, the operator). The provider is asked outside any transaction.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lava_proxy.books.bank import Books
from lava_proxy.books.share import Share
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import hash_secret, new_id
from lava_proxy.pages.form import asks_who, buyer_in, mistakes, same_terms
from lava_proxy.pages.state import CAN_PAY, Offer, offer_of, state_of
from lava_proxy.payments.seam import ChargeAnswer, ChargeAsk, CheckoutAsk, Payments, PaymentsDown
from lava_proxy.store import checkout_sessions as store
from lava_proxy.store import lookups, payers, payments, pending, subscriptions
from lava_proxy.store.checkout_sessions import Buyer, SessionRow
from lava_proxy.store.database import Connection
from lava_proxy.store.news import credit_moved
from lava_proxy.store.payments import Retry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refused:
    """The form is shown again: what is wrong with it, or that it was for other terms."""

    row: SessionRow
    buyer: Buyer
    wrong: Mapping[str, str] = field(default_factory=dict)
    changed: bool = False


@dataclass(frozen=True, slots=True)
class _Due:
    """A payment that the provider is to be asked for."""

    row: SessionRow
    payment_id: str
    owner_id: str
    amount_e10: int
    email: str | None


class Counter:
    """One per process."""

    def __init__(self, books: Books, provider: Payments) -> None:
        self.books = books
        self.provider = provider
        self._share = Share(books.database, books.settings.database_pool_size // 4)

    async def look(self, secret: str) -> SessionRow:
        """The session of a secret, or 404."""
        async with self._share.reading() as conn:
            return await self._find(conn, secret)

    async def press(self, secret: str, form: Mapping[str, str], page_url: str) -> Refused | None:
        """The button was pressed. None: look again where the session is now."""
        now = self.books.now()
        async with self._share.writing() as conn:
            row = await store.lock(conn, await self._find(conn, secret), self.provider.name)
            if state_of(row, now) not in CAN_PAY:
                return None
            offer, buyer = offer_of(row, now), buyer_in(row, form)
            wrong = mistakes(buyer) if asks_who(row) else {}
            if wrong or not same_terms(form, offer):
                return Refused(row, buyer, wrong, changed=not wrong)
            unpayable = self.provider.refusal(offer.amount_e10)
            if unpayable is not None:
                raise LavaError("conflict", f"the price {unpayable}")
            if (offer.later or offer.kept) and not offer.amount_e10:
                await self._change(conn, row, offer, now)
                due = None
            else:
                due = await self._begin(conn, row, offer, buyer, now)
        if due is not None:
            await self._ask(due, page_url)
        elif row.customer_id is not None:
            self.books.directory.changed("customers", row.customer_id)
        return None

    async def _find(self, conn: Connection, secret: str) -> SessionRow:
        """Looked up by the hash: what a guess can learn from the time it takes is a hash's."""
        secret_hash = hash_secret(secret)
        row = await store.find(conn, secret_hash, self.provider.name)
        if row is None or not hmac.compare_digest(row.secret_hash, secret_hash):
            raise LavaError("not_found", "there is no such checkout session")
        return row

    async def _change(self, conn: Connection, row: SessionRow, offer: Offer, now: datetime) -> None:
        """Free of charge: a downgrade, with the cycle's end, or none. The account is locked."""
        customer_id, plan_id = row.customer_id, row.plan_id
        if customer_id is None or row.subscription_id is None or plan_id is None:
            raise LavaError("conflict", "there is nothing to change")
        if not await subscriptions.on_sale(conn, customer_id, plan_id, now):
            raise LavaError("conflict", "this plan is not sold any more")  # ended in this moment
        if offer.kept:
            await pending.keep(conn, row.subscription_id, now)
        else:
            await pending.change_later(conn, row.subscription_id, plan_id, now)
        await store.complete(conn, row.checkout_session_id, customer_id, now)
        await credit_moved(conn, customer_id, now)

    async def _begin(
        self, conn: Connection, row: SessionRow, offer: Offer, buyer: Buyer, now: datetime
    ) -> _Due:
        """Write the payment down, or open the one that is there again. All is locked."""
        payment_id = row.payment_id or new_id("payment", test=row.test)
        look_at = self.books.settings.lookup_after(now)
        if row.payment_id is None:
            plan = row.checkout_mode == "subscription"
            await payments.open_payment(
                conn,
                payment_id=payment_id,
                merchant_id=row.merchant_id,
                customer_id=row.customer_id,
                purpose="subscription" if plan else "bundle",
                amount_e10=offer.amount_e10,
                provider=self.provider.name,
                now=now,
                plan_id=row.plan_id if plan else None,
                credit_bundle_id=None if plan else row.credit_bundle_id,
                credit_e10=offer.credit_e10,
                checkout_session_id=row.checkout_session_id,
                due_at=now,
                look_at=look_at,
            )
        else:
            await store.ask_again(conn, payment_id, self.provider.name, now, look_at)
        buyer_id = await store.begin(conn, row, payment_id, buyer)
        email = row.email if row.customer_id is not None else buyer.email
        return _Due(row, payment_id, buyer_id, offer.amount_e10, email)

    async def _ask(self, due: _Due, page_url: str) -> None:
        try:
            answer = await self._answer(due, page_url)
        except PaymentsDown as error:
            log.warning("payment %s: %s", due.payment_id, error)
            return  # nobody has answered: the page offers to try again
        async with self._share.writing() as conn:
            customer_id = await self._conclude(conn, due, answer)
        if customer_id is not None:
            self.books.directory.changed("customers", customer_id)
            self.books.leases.credit_changed(customer_id)

    async def _answer(self, due: _Due, page_url: str) -> ChargeAnswer:
        """What the provider says: its own page where it has one, a charge where it has none."""
        if not due.amount_e10:
            return ChargeAnswer("succeeded")
        row, what = due.row, due.row.plan_name or due.row.bundle_name or ""
        attempt = (row.attempts or 0) + 1
        page = await self.provider.checkout(
            CheckoutAsk(
                reference=due.payment_id,
                owner_id=due.owner_id,
                payer_ref=row.payer_ref,
                amount_e10=due.amount_e10,
                description=f"{row.merchant_name}: {what}",
                success_url=page_url,
                cancel_url=page_url,
                email=due.email,
                attempt=attempt,
            )
        )
        if page.payer_gone:
            async with self._share.writing() as conn:
                await payers.forget_payer(conn, due.owner_id, self.provider.name, row.payer_ref)
        if page.redirect_url is not None:
            return ChargeAnswer(
                "requires_action", redirect_url=page.redirect_url, page_ref=page.provider_ref
            )
        return await self.provider.charge(
            ChargeAsk(
                payment_id=due.payment_id,
                merchant_id=row.merchant_id,
                customer_id=due.owner_id,
                payer_ref=row.payer_ref,
                amount_e10=due.amount_e10,
                description=f"{row.merchant_name}: {what}",
                payer_present=True,
                provider_ref=row.provider_ref,
                return_url=page_url,
                attempt=attempt,
            )
        )

    async def _conclude(self, conn: Connection, due: _Due, answer: ChargeAnswer) -> str | None:
        """Write down what the provider said; answers whose credit changed."""
        now, settings = self.books.now(), self.books.settings
        if answer.outcome == "succeeded":
            done = await payments.succeeded(conn, due.payment_id, answer.provider_ref, now)
            return due.owner_id if done else None
        if answer.outcome == "declined":
            await payments.failed(
                conn,
                due.payment_id,
                now,
                Retry(settings.renewal_grace_days, settings.top_up_retry_s),
                ref=answer.provider_ref,
                code=answer.code,
                message=answer.message,
            )
            return None
        await payments.wait_for_provider(
            conn, due.payment_id, answer.provider_ref, settings.lookup_after(now)
        )
        if answer.page_ref is not None:
            await lookups.note_page(conn, due.payment_id, answer.page_ref)
        await store.set_redirect(conn, due.row.checkout_session_id, answer.redirect_url)
        return None
