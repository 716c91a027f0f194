"""Whole lives of customers, at random: they subscribe, change, cancel, spend, pay, pay late, are
declined; workers are late, run twice, or die after the provider has charged. In the end every
payment was delivered once, nothing else was granted, and the books add up.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from books_kit import fetch, row
from plans_kit import USD, Club, open_club

from lava_proxy.core.errors import LavaError
from lava_proxy.payments.seam import ChargeAnswer, ChargeAsk, Lookup, PaymentsDown, Standing
from lava_proxy.store import payments, plans, subscriptions
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database
from lava_proxy.store.payments import Retry
from lava_proxy.store.plans import PlanRow

SEEDS = range(300 if os.environ.get("RIG_LONG") else 4)
STEPS = 60
CAP = 50
HOLDERS = ("hld_1", "hld_2")


@dataclass
class Bank:
    """The provider's side: the same key is the same charge, whatever we hear of it."""

    dice: random.Random
    name: str = "bank"
    known: dict[tuple[str, int], ChargeAnswer] = field(default_factory=dict)
    charged: dict[str, int] = field(default_factory=dict)
    """Money taken, by payment."""
    lost: float = 0.1
    """How often an ask, or an answer, does not arrive."""
    open: dict[str, int] = field(default_factory=dict)
    """What is pending or waits for its payer."""

    async def look_up(self, ask: Lookup) -> Standing | None:
        await asyncio.sleep(0)
        if ask.payment_id in self.charged:
            ref, amount = f"ref_{ask.payment_id}", self.charged[ask.payment_id]
            return Standing("succeeded", ref, amount_e10=amount)
        if ask.payment_id in self.open:
            return Standing("waits")
        return Standing("declined", code="no") if ask.answered else None

    async def call_off(self, ask: Lookup) -> Standing | None:
        """Some pay in this very moment."""
        if ask.payment_id in self.open:
            amount = self.open.pop(ask.payment_id)
            if self.dice.random() < 0.7:
                return Standing("over")
            self.charged[ask.payment_id] = amount
        return await self.look_up(ask)

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        await asyncio.sleep(0)
        if self.dice.random() < self.lost:
            raise PaymentsDown("before")
        key = (ask.payment_id, ask.attempt)
        if ask.payment_id in self.charged:
            return ChargeAnswer("succeeded")
        if key not in self.known:
            what = self.dice.choices(
                ("succeeded", "declined", "requires_action", "pending"), (6, 2, 1, 1)
            )[0]
            self.known[key] = ChargeAnswer(what, f"ref_{ask.payment_id}")  # type: ignore[arg-type]
            if what == "succeeded":
                self.charged[ask.payment_id] = ask.amount_e10
            elif what != "declined":
                self.open[ask.payment_id] = ask.amount_e10
        if self.dice.random() < self.lost:
            raise PaymentsDown("after")
        return self.known[key]


@dataclass
class Lives:
    """A few customers of one merchant."""

    club: Club
    bank: Bank
    dice: random.Random
    customers: list[str] = field(default_factory=list)
    plans: list[PlanRow] = field(default_factory=list)

    async def begin(self) -> None:
        self.customers = [await self.club.shop.customer() for _ in range(3)]
        make = self.club.plan
        self.plans = [
            await make(0, included=3, rollover="full", bundle=(10, 12)),
            await make(0, included=1, interval="week", bundle_rollover="none", bundle=(5, 5)),
            await make(20, included=25, bundle=(10, 15)),
            await make(40, rollover="full", interval="week"),
            await make(7, included=0, interval="day", bundle=(3, 2), bundle_rollover="none"),
        ]

    async def step(self) -> None:
        acts = {
            self.wait: 8,
            self.renew: 6,
            self.top_up: 6,
            self.lease: 8,
            self.spend: 8,
            self.give_back: 3,
            self.buy: 4,
            self.go_free: 3,
            self.cancel: 2,
            self.hear: 4,
            self.look_up: 3,
            self.end_plan: 1,
        }
        act = self.dice.choices(list(acts), list(acts.values()))[0]
        try:
            await act()
        except LavaError as error:
            if error.code not in ("conflict", "not_found"):
                raise

    @property
    def somebody(self) -> str:
        return self.dice.choice(self.customers)

    async def wait(self) -> None:
        self.club.later(hours=self.dice.choice((0.02, 1, 5, 24, 24 * 3, 24 * 9, 24 * 70)))

    async def renew(self) -> None:
        await asyncio.gather(*[self.club.renew() for _ in range(self.dice.randint(1, 3))])

    async def top_up(self) -> None:
        await asyncio.gather(*[self.club.top_up() for _ in range(self.dice.randint(1, 3))])

    async def lease(self) -> None:
        customer = self.somebody
        asks = [self.club.lease(customer, self.dice.randint(1, 9), h) for h in HOLDERS]
        await asyncio.gather(*asks)

    async def spend(self) -> None:
        """Through a lease or past it, also beyond what there is."""
        used = self.dice.randint(1, 6 * USD)
        holder = self.dice.choice((*HOLDERS, "hld_none"))
        await self.club.shop.settle(row(self.somebody, used, shop=self.club.shop, holder_id=holder))

    async def give_back(self) -> None:
        await self.club.shop.give_back(self.somebody, None, self.dice.choice(HOLDERS))

    async def buy(self) -> None:
        """A plan or a bundle in the checkout; paid now, or whenever `hear` says so."""
        customer, plan = self.somebody, self.dice.choice(self.plans)
        price = plan.period_amount_e10
        if self.dice.random() < 0.3 and plan.bundles:
            bundle = plan.bundles[0]
            price, what = bundle.cost_e10, {"credit_bundle_id": bundle.credit_bundle_id}
            payment = await self.club.pay(customer, "bundle", price // USD, **what)
        elif price:
            payment = await self.club.pay(
                customer, "subscription", price // USD, plan_id=plan.plan_id
            )
        else:
            return
        self.bank.open[payment] = price
        await fetch(
            self.club.database,
            "UPDATE payments SET look_at = $1 WHERE payment_id = $2",
            self.club.books.now() + timedelta(minutes=10),
            payment,
        )
        if self.dice.random() < 0.7:
            await self.pay(payment)

    async def pay(self, payment: str) -> None:
        self.bank.charged[payment] = self.bank.open.pop(payment)
        heard = [self.club.paid(payment) for _ in range(self.dice.randint(0, 2))]
        await asyncio.gather(*heard)

    async def hear(self) -> None:
        """The provider tells what became of something that was open, or tells it again."""
        if self.bank.open and self.dice.random() < 0.7:
            payment = self.dice.choice(sorted(self.bank.open))
            if self.dice.random() < 0.6:
                await self.pay(payment)
                return
            del self.bank.open[payment]
            retry = Retry(self.club.books.settings.renewal_grace_days, 3600)
            async with self.club.database.transaction() as conn:
                await payments.failed(conn, payment, self.club.books.now(), retry, code="late")
        elif self.bank.charged:
            await self.club.paid(self.dice.choice(sorted(self.bank.charged)))

    async def look_up(self) -> None:
        await asyncio.gather(*[self.club.look_up() for _ in range(self.dice.randint(1, 2))])

    async def go_free(self) -> None:
        plan = self.dice.choice(self.plans)
        async with self.club.database.transaction() as conn:
            await subscriptions.subscribe_free(
                conn,
                customer_id=self.somebody,
                plan_id=plan.plan_id,
                now=self.club.books.now(),
            )

    async def cancel(self) -> None:
        merchant = self.club.shop.merchant_id
        found = await fetch(
            self.club.database,
            "SELECT subscription_id FROM subscriptions "
            "WHERE customer_id = $1 AND status = 'active'",
            self.somebody,
        )
        for (subscription,) in found:
            async with self.club.database.transaction() as conn:
                await subscriptions.cancel(
                    conn,
                    subscription_id=str(subscription),
                    merchant_id=merchant,
                    now=self.club.books.now(),
                )

    async def end_plan(self) -> None:
        plan = self.dice.choice(self.plans)
        async with self.club.database.transaction() as conn:
            await plans.delete(
                conn, self.club.shop.merchant_id, plan.plan_id, self.club.books.now()
            )

    # The end ------------------------------------------------------------------------------------

    async def end(self) -> None:
        """All leases come back, and we hear of all that was charged, or find it by looking."""
        for customer in self.customers:
            for holder in HOLDERS:
                await self.club.shop.give_back(customer, None, holder)
        if self.dice.random() < 0.5:
            for payment in self.bank.charged:
                await self.club.paid(payment)
        self.bank.lost = 0.0
        for _ in range(4):  # what was asked for and not answered is asked for again
            self.club.later(hours=7)
            await self.club.top_up()
            await self.club.renew()
            await self.club.look_up()
        await self.delivered_once()
        await self.granted_for_a_reason()
        await self.within_the_cap()
        found = await audit(self.club.database)
        assert found.differences == ()
        assert found.sound

    async def look(self, query: str) -> list[tuple[Any, ...]]:
        return await fetch(self.club.database, query, self.club.shop.merchant_id)

    async def delivered_once(self) -> None:
        """What succeeded here is what was charged there; each is one cycle's or one grant's."""
        rows = await self.look(
            "SELECT payment_id, amount_e10 FROM payments "
            "WHERE merchant_id = $1 AND status = 'succeeded'"
        )
        assert dict(rows) == self.bank.charged
        begun = await self.look(
            "SELECT c.payment_id FROM cycles c JOIN subscriptions s USING (subscription_id) "
            "WHERE s.merchant_id = $1 AND c.payment_id IS NOT NULL"
        )
        bought = await self.look(
            "SELECT note FROM credit_grants WHERE merchant_id = $1 AND kind = 'bundle'"
        )
        waiting = await self.look(
            "SELECT pending_payment_id FROM subscriptions "
            "WHERE merchant_id = $1 AND status = 'active' AND pending_payment_id IS NOT NULL"
        )
        delivered = [payment for (payment,) in begun + bought + waiting]
        assert sorted(delivered) == sorted(self.bank.charged)

    async def granted_for_a_reason(self) -> None:
        """Every cycle grants what its plan includes, once; cycles follow each other."""
        rows = await self.look(
            "SELECT c.subscription_id, c.seq, c.starts_at, p.included_credit_e10, g.amount_e10 "
            "FROM cycles c JOIN plans p USING (plan_id) LEFT JOIN credit_grants g USING (grant_id) "
            "WHERE p.merchant_id = $1 ORDER BY c.subscription_id, c.seq"
        )
        for _, _, _, included, granted in rows:
            assert (granted or 0) == included
        for before, after in pairwise(rows):
            if before[0] == after[0]:
                assert after[1] == before[1] + 1
                assert after[2] >= before[2]
        granted = sum(one[4] or 0 for one in rows)
        (total,) = await self.look(
            "SELECT coalesce(sum(amount_e10), 0)::bigint FROM credit_grants "
            "WHERE merchant_id = $1 AND kind = 'cycle'"
        )
        assert total == (granted,)

    async def within_the_cap(self) -> None:
        rows = await self.look(
            "SELECT sum(amount_e10)::bigint FROM payments WHERE merchant_id = $1 "
            "AND purpose = 'top_up' AND status = 'succeeded' "
            "GROUP BY customer_id, date_trunc('month', created_at AT TIME ZONE 'UTC')"
        )
        assert all(spent <= CAP * USD for (spent,) in rows)


@pytest.mark.parametrize("seed", SEEDS)
async def test_lives_end_with_sound_books(seed: int, database: Database, tmp_path: Path) -> None:
    dice = random.Random(seed)
    settings = {"top_up_monthly_max": CAP, "renewal_grace_days": 7}
    async with open_club(database, tmp_path, **settings) as club:
        bank = Bank(dice)
        club.till = bank  # type: ignore[assignment]
        lives = Lives(club, bank, dice)
        await lives.begin()
        if seed % 2:  # who leaves another plan is put on this one
            free = "UPDATE merchants SET free_plan_id = $1"
            await fetch(database, free, lives.plans[0].plan_id)
        for _ in range(STEPS):
            await lives.step()
        await lives.end()
