"""Plans in short words: a merchant's plans, customers on them, a payment provider that does as it
is told, and a clock that jumps."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from books_kit import Shop, fetch, make_books, open_shop

from lava_proxy.books.bank import Books
from lava_proxy.core.clock import ManualClock
from lava_proxy.core.ids import new_id
from lava_proxy.payments.seam import ChargeAnswer, ChargeAsk, Lookup, PaymentsDown, Standing
from lava_proxy.rules.cycle import Interval
from lava_proxy.store import leasing, payments, plans, subscriptions
from lava_proxy.store.credit import LeaseAnswer, LeaseAsk
from lava_proxy.store.database import Database, StoreConflict, StoreDown
from lava_proxy.store.payments import Purpose
from lava_proxy.store.plans import BundleRow, PlanRow, Rollover
from lava_proxy.workers import lookups, renewals, top_ups

USD = 10**10
START = datetime(2026, 1, 31, 10, tzinfo=UTC)
DECLINED = ChargeAnswer("declined", code="card_declined", message="no")
PENDING = ChargeAnswer("pending")


@dataclass
class Till:
    """A payment provider: answers in turn, then `usual`. Keeps what it was asked."""

    name: str = "till"
    usual: ChargeAnswer | type[PaymentsDown] = field(
        default_factory=lambda: ChargeAnswer("succeeded")
    )
    answers: deque[ChargeAnswer | type[PaymentsDown]] = field(default_factory=deque)
    asked: list[ChargeAsk] = field(default_factory=list)
    standing: Standing | None = None
    looked: list[Lookup] = field(default_factory=list)
    called_off: list[Lookup] = field(default_factory=list)

    async def look_up(self, ask: Lookup) -> Standing | None:
        self.looked.append(ask)
        return self.standing

    async def call_off(self, ask: Lookup) -> Standing | None:
        self.called_off.append(ask)
        return Standing("over", ask.provider_ref)

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        self.asked.append(ask)
        said = self.answers.popleft() if self.answers else self.usual
        if isinstance(said, ChargeAnswer):
            return said
        raise said("away")


@dataclass
class Club:
    """A merchant with plans, and time."""

    shop: Shop
    books: Books
    clock: ManualClock
    till: Till

    @property
    def database(self) -> Database:
        return self.shop.database

    def at(self, when: datetime) -> None:
        """Go to that moment."""
        self.clock.seconds = 1000.0 + (when - self.clock.start).total_seconds()
        self.shop.now = self.clock.now()

    def later(self, **how: float) -> None:
        """Go on by so many days, hours ..."""
        self.at(self.clock.now() + timedelta(**how))

    async def plan(
        self,
        price: int = 20,
        *,
        included: int | None = None,
        interval: Interval = "month",
        rollover: Rollover = "none",
        bundle_rollover: Rollover = "full",
        bundle: tuple[int, int] | None = None,
    ) -> PlanRow:
        """A plan; amounts in USD. `bundle` is (cost, credit) of its default auto top-up."""
        now, plan_id = self.books.now(), new_id("plan")
        bundles = ()
        if bundle is not None:
            made = new_id("credit_bundle")
            bundles = (BundleRow(made, plan_id, "b", bundle[0] * USD, bundle[1] * USD, now),)
        wanted = PlanRow(
            plan_id=plan_id,
            merchant_id=self.shop.merchant_id,
            name="p",
            period_amount_e10=price * USD,
            included_credit_e10=(price if included is None else included) * USD,
            billing_interval=interval,
            rollover_type=rollover,
            bundle_rollover_type=bundle_rollover,
            default_top_up_bundle_id=bundles[0].credit_bundle_id if bundles else None,
            created_at=now,
            bundles=bundles,
        )
        async with self.database.transaction() as conn:
            return await plans.create(conn, wanted, ())

    async def pay(self, customer_id: str, purpose: Purpose, amount: int, **what: object) -> str:
        """A payment opened for a customer, as a checkout would; answers its id."""
        payment_id = new_id("payment")
        async with self.database.transaction() as conn:
            await payments.open_payment(
                conn,
                payment_id=payment_id,
                merchant_id=self.shop.merchant_id,
                customer_id=customer_id,
                purpose=purpose,
                amount_e10=amount * USD,
                provider=self.till.name,
                now=self.books.now(),
                **what,  # type: ignore[arg-type]
            )
        return payment_id

    async def paid(self, payment_id: str) -> bool:
        """The provider says that the money is there."""
        async with self.database.transaction() as conn:
            return await payments.succeeded(conn, payment_id, None, self.books.now())

    async def subscribe(self, customer_id: str, plan: PlanRow) -> str:
        """Onto a plan at once: bought, or free; answers the subscription."""
        async with self.database.transaction() as conn:
            return await subscriptions.start(
                conn, customer_id=customer_id, plan_id=plan.plan_id, now=self.books.now()
            )

    async def member(self, plan: PlanRow) -> tuple[str, str]:
        """A new customer on a plan: (customer, subscription)."""
        customer_id = await self.shop.customer()
        return customer_id, await self.subscribe(customer_id, plan)

    async def lease(self, customer_id: str, amount: int, holder: str = "hld_1") -> LeaseAnswer:
        """What a worker gets that needs so many USD; it tries again when others are in the way."""
        wanted = amount * USD
        ask = LeaseAsk(new_id("lease"), customer_id, holder, wanted, wanted, 0, 0, 300.0)
        while True:
            with suppress(StoreConflict, StoreDown):  # no connection is free
                async with self.database.transaction() as conn:
                    return await leasing.lease(conn, ask, self.books.top_up_rules, self.books.now())

    async def renew(self) -> None:
        """What the renewal worker does in one round."""
        await renewals.run_once(self.books, self.till)

    async def top_up(self) -> None:
        """What the top-up worker does in one round."""
        await top_ups.run_once(self.books, self.till)

    async def look_up(self) -> None:
        """What the worker that looks payments up does in one round."""
        await lookups.run_once(self.books, self.till)

    async def credit(self, customer_id: str) -> tuple[int, int]:
        """(cycle, bundle) credit that is left, in 10^-10 USD, with what workers hold."""
        rows = await fetch(
            self.database,
            "SELECT kind, leased_e10 + CASE WHEN expires_at <= $2 THEN 0 ELSE available_e10 END "
            "FROM credit_grants WHERE owner_id = $1",
            customer_id,
            self.books.now(),
        )
        sums = {"cycle": 0, "bundle": 0}
        for kind, amount in rows:
            assert isinstance(amount, int)
            sums[str(kind)] += amount
        return sums["cycle"], sums["bundle"]

    async def subscription(self, subscription_id: str) -> dict[str, object]:
        """A subscription's row."""
        async with self.database.connection() as conn:
            row = await conn.fetchrow(
                "SELECT * FROM subscriptions WHERE subscription_id = $1", subscription_id
            )
        assert row is not None
        return dict(row)

    async def payments(self, customer_id: str, purpose: Purpose) -> list[dict[str, object]]:
        """A customer's payments for one purpose, oldest first."""
        async with self.database.connection() as conn:
            rows = await conn.fetch(
                "SELECT * FROM payments WHERE customer_id = $1 AND purpose = $2 "
                "ORDER BY created_at, payment_id",
                customer_id,
                purpose,
            )
        return [dict(row) for row in rows]

    async def cycles(self, subscription_id: str) -> list[tuple[int, datetime, datetime]]:
        """(seq, start, end) of each cycle."""
        rows = await fetch(
            self.database,
            "SELECT seq, starts_at, ends_at FROM cycles WHERE subscription_id = $1 ORDER BY seq",
            subscription_id,
        )
        return rows  # type: ignore[return-value]


@asynccontextmanager
async def open_club(
    database: Database, folder: object, start: datetime = START, **settings: object
) -> AsyncIterator[Club]:
    """A merchant on open books, at `start`."""
    clock = ManualClock()
    books = make_books(database, clock, folder, **settings)
    await books.open()
    club = Club(await open_shop(database), books, clock, Till())
    club.at(start)
    yield club
    await books.close()
