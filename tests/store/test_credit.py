"""Grants and leases: sizes, retries, what comes back, what expires, and a model that agrees."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain

import pytest
from books_kit import HOLDER, NOW, Shop, fetch, open_shop, row, sound

from lava_proxy.core.errors import LavaError
from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.store import balance as balances
from lava_proxy.store import credit, reaping
from lava_proxy.store.credit import LeaseAnswer
from lava_proxy.store.database import Database, StorePoison

DAY = timedelta(days=1)


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await open_shop(database)


# Sizes ------------------------------------------------------------------------------------------


SIZES = [
    # free, least, hold, burn: expected
    ((1000, 10, 10, 0), 10),  # nothing is known of the burn: one hold
    ((1000, 10, 10, 100), 100),  # a minute's burn
    ((1000, 10, 10, 5000), 250),  # but a quarter at most
    ((1000, 10, 400, 5000), 400),  # and never less than one hold
    ((30, 10, 400, 5000), 30),  # as much as there is, if that is the least
    ((10, 10, 400, 5000), 10),
    ((9, 10, 400, 5000), 0),
    ((3, 1, 1, 100), 1),  # a quarter rounds down, one hold remains
    ((0, 0, 0, 0), 0),
]


async def test_the_size_of_a_lease(shop: Shop) -> None:
    for (free, least, hold, burn), expected in SIZES:
        owner = await shop.customer(*([free] if free else []))
        answer = await shop.lease(owner, hold, least_e10=least, burn_e10=burn)
        assert answer == LeaseAnswer(expected, free, 0)
        assert await shop.left_of(owner) == expected
    await sound(shop.database)


async def test_leases_shrink_towards_zero(shop: Shop) -> None:
    owner = await shop.customer(1000)
    sizes = []
    while amount := (await shop.lease(owner, 1, burn_e10=10**9)).amount_e10:
        sizes.append(amount)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[:3] == [250, 187, 140]
    assert sum(sizes) == 1000


async def test_what_others_hold_is_told(shop: Shop) -> None:
    owner = await shop.customer(100)
    await shop.lease(owner, 30, holder_id="hld_a")
    await shop.lease(owner, 20, holder_id="hld_b")
    assert await shop.lease(owner, 60, holder_id="hld_b") == LeaseAnswer(0, 50, 30)


async def test_the_same_lease_asked_for_again_is_not_doubled(shop: Shop) -> None:
    owner = await shop.customer(100)
    first = await shop.lease(owner, 30, lease_id="lea_1")
    again = await shop.lease(owner, 70, lease_id="lea_1")
    assert (first.amount_e10, again.amount_e10) == (30, 30)
    assert await shop.grants(owner) == [(70, 30, 0, 0, 0)]
    await sound(shop.database)


async def test_overdraft_is_shared_by_all_who_lease(shop: Shop) -> None:
    owner = await shop.customer(10)
    assert (await shop.lease(owner, 60, holder_id="a", overdraft_e10=100)).amount_e10 == 60
    assert (await shop.lease(owner, 60, holder_id="b", overdraft_e10=100)).amount_e10 == 0
    assert (await shop.lease(owner, 50, holder_id="b", overdraft_e10=100)).amount_e10 == 50
    assert (await shop.lease(owner, 1, holder_id="c", overdraft_e10=20)).amount_e10 == 0
    assert await shop.debt(owner) == (0, 100)
    await sound(shop.database)


async def test_an_account_that_is_not_there(shop: Shop) -> None:
    for act in (
        shop.lease("con_nobody", 1),
        shop.give_back("con_nobody"),
        shop.grant("con_nobody", 1),
        shop.withdraw("con_nobody", 1),
    ):
        with pytest.raises(LavaError, match="not_found"):
            await act


# Time -------------------------------------------------------------------------------------------


async def test_a_lease_lives_by_the_databases_clock(shop: Shop) -> None:
    """A worker whose wall clock is a year behind gets the same time as all others."""
    owner = await shop.customer(100)
    shop.now = datetime(2020, 1, 1, tzinfo=NOW.tzinfo)
    await shop.lease(owner, 10)
    ((left_s,),) = await fetch(
        shop.database, "SELECT extract(epoch FROM expires_at - clock_timestamp())::int FROM leases"
    )
    assert left_s in (299, 300)


async def test_only_leases_past_their_grace_are_reclaimed(shop: Shop) -> None:
    owner = await shop.customer(100)
    for holder, age_s in (("old", 91), ("young", 89)):
        await shop.lease(owner, 10, holder_id=holder)
        await fetch(
            shop.database,
            "UPDATE leases SET expires_at = now() - make_interval(secs => $2::float8) "
            "WHERE holder_id = $1",
            holder,
            age_s,
        )
    async with shop.database.connection() as conn:
        assert await reaping.expired(conn, 90, 10) == [(owner, "old")]
        assert await reaping.expired(conn, 80, 1) == [(owner, "old")]
        assert len(await reaping.expired(conn, 80, 10)) == 2


async def test_a_new_lease_and_renewal_give_time_to_all_of_a_holders_leases(shop: Shop) -> None:
    owner = await shop.customer(100)
    renewals = (
        lambda: shop.lease(owner, 10),
        lambda: shop.lease(owner, 1000),  # a refusal renews too
    )
    for renewal in renewals:
        await shop.lease(owner, 10)
        await shop.lease(owner, 10, holder_id="other")
        await fetch(shop.database, "UPDATE leases SET expires_at = now()")
        await renewal()
        rows = await fetch(
            shop.database, "SELECT DISTINCT holder_id, expires_at > now() FROM leases ORDER BY 1"
        )
        assert rows == [(HOLDER, True), ("other", False)]
    async with shop.database.transaction() as conn:
        assert await credit.renew(conn, owner, "other", 50.0) == 2
        assert await credit.renew(conn, owner, "nobody", 50.0) == 0
    rows = await fetch(shop.database, "SELECT bool_and(expires_at > now()) FROM leases")
    assert rows == [(True,)]


# What comes back --------------------------------------------------------------------------------


async def test_what_comes_back_returns_in_reverse_burn_order(shop: Shop) -> None:
    owner = await shop.customer()
    await shop.grant(owner, 100, kind="cycle", grant_id="crd_1")
    await shop.grant(owner, 100, grant_id="crd_2")
    await shop.lease(owner, 150, lease_id="lea_1")
    await shop.lease(owner, 50, overdraft_e10=10, lease_id="lea_2")
    assert await shop.give_back(owner, 60) == 60
    assert [g[:2] for g in await shop.grants(owner)] == [(0, 100), (60, 40)]
    assert await shop.give_back(owner, 70) == 70
    assert [g[:2] for g in await shop.grants(owner)] == [(30, 70), (100, 0)]
    assert await fetch(
        shop.database, "SELECT lease_id, closed_at IS NULL FROM leases ORDER BY 1"
    ) == [("lea_1", True), ("lea_2", False)]
    assert await shop.give_back(owner) == 70
    assert await shop.give_back(owner) == 0
    assert [g[:2] for g in await shop.grants(owner)] == [(100, 0), (100, 0)]
    await sound(shop.database)


async def test_a_share_of_an_expired_grant_comes_back_as_expired(shop: Shop) -> None:
    owner = await shop.customer()
    await shop.grant(owner, 100, expires_at=NOW + DAY)
    await shop.lease(owner, 60)
    shop.now = NOW + DAY
    assert (await shop.lease(owner, 1)).amount_e10 == 0  # which also expires what is free
    assert await shop.grants(owner) == [(0, 60, 0, 40, 0)]
    await shop.settle(row(owner, 25, shop=shop))  # leased in time: may still be spent
    assert await shop.give_back(owner) == 35
    assert await shop.grants(owner) == [(0, 0, 25, 75, 0)]
    assert await shop.ledger("expired") == 75
    assert await shop.ledger(f"customer:{owner}") == 0
    await sound(shop.database)


async def test_closing_a_holder_returns_all_that_it_has(shop: Shop) -> None:
    owners = [await shop.customer(100) for _ in range(3)]
    for owner in owners:
        await shop.lease(owner, 40)
    await shop.lease(owners[0], 10, holder_id="hld_other")
    await shop.settle(row(owners[1], 40, shop=shop))
    async with shop.database.transaction() as conn:
        assert await credit.close_holder(conn, HOLDER, NOW) == 80
        assert await credit.close_holder(conn, HOLDER, NOW) == 0
    assert await fetch(shop.database, "SELECT holder_id FROM leases WHERE closed_at IS NULL") == [
        ("hld_other",)
    ]
    await sound(shop.database)


async def test_credit_that_comes_back_pays_old_debt(shop: Shop) -> None:
    """A report comes while a worker holds all credit; the customer may not spend that twice."""
    owner = await shop.customer(100)
    await shop.lease(owner, 100)
    await shop.settle(row(owner, 30, shop=shop, holder_id=""))
    assert await shop.debt(owner) == (30, 0)
    await shop.give_back(owner)
    assert await shop.debt(owner) == (0, 0)
    assert await shop.grants(owner) == [(70, 0, 30, 0, 0)]
    assert (await shop.lease(owner, 71)).amount_e10 == 0
    await sound(shop.database)


# Grants, withdrawals, balance -------------------------------------------------------------------


async def test_a_grant_pays_old_debt_first(shop: Shop) -> None:
    owner = await shop.customer()
    await shop.settle(row(owner, 30, shop=shop))
    await shop.grant(owner, 20, grant_id="crd_1")
    assert await shop.debt(owner) == (10, 0)
    await shop.grant(owner, 20, grant_id="crd_2")
    assert await shop.debt(owner) == (0, 0)
    assert await shop.grants(owner) == [(0, 0, 20, 0, 0), (10, 0, 10, 0, 0)]
    await sound(shop.database)


async def test_a_grant_is_made_once(shop: Shop) -> None:
    owner = await shop.customer()
    await shop.grant(owner, 20, grant_id="crd_1")
    with pytest.raises(StorePoison):
        await shop.grant(owner, 20, grant_id="crd_1")
    for amount in (0, -5):
        with pytest.raises(StorePoison):
            await shop.grant(owner, amount)
    assert (await sound(shop.database)).granted_e10 == 20


async def test_only_free_credit_can_be_taken_back(shop: Shop) -> None:
    owner = await shop.customer()
    await shop.grant(owner, 50, kind="cycle", grant_id="crd_1")
    await shop.grant(owner, 50, grant_id="crd_2")
    await shop.grant(owner, 50, expires_at=NOW - DAY, grant_id="crd_3")
    await shop.lease(owner, 30)
    with pytest.raises(LavaError, match=r"only 0\.0000000070 "):
        await shop.withdraw(owner, 71)
    await shop.withdraw(owner, 60)
    assert await shop.grants(owner) == [(10, 30, 0, 0, 10), (0, 0, 0, 0, 50), (0, 0, 0, 50, 0)]
    assert await shop.ledger("operator:grants") == -90
    for amount in (0, -1):
        with pytest.raises(InvariantBroken):
            await shop.withdraw(owner, amount)
    await sound(shop.database)


async def test_the_balance(shop: Shop) -> None:
    owner = await shop.customer()
    ((now,),) = await fetch(shop.database, "SELECT now()")
    assert isinstance(now, datetime)
    await shop.grant(owner, 100, kind="cycle", expires_at=now - DAY)
    shop.now = now - 2 * DAY
    await shop.lease(owner, 40)  # leased in time; the other 60 are gone
    shop.now = now
    await shop.grant(owner, 7, kind="bundle")
    await shop.grant(owner, 5)
    async with shop.database.connection() as conn:
        found = await balances.balance(conn, owner)
        assert found == balances.Balance(12, 40, 0, 40, 12)
        await shop.settle(row(owner, 20, shop=shop, holder_id=""))
        found = await balances.balance(conn, owner)
        assert (found.available_e10, found.debt_e10) == (-8, 8)
        with pytest.raises(LavaError, match="not_found"):
            await balances.balance(conn, "con_nobody")


# Against a model --------------------------------------------------------------------------------


@dataclass
class _Grant:
    available: int
    expires_at: datetime | None
    leased: int = 0
    spent: int = 0
    expired: int = 0
    withdrawn: int = 0


@dataclass
class _Share:
    grant: _Grant
    left: int


@dataclass
class _Model:
    """A customer's money in lists: grants in burn order, shares of leases in the order taken."""

    grants: list[_Grant] = field(default_factory=list)
    leases: dict[str, list[list[_Share]]] = field(default_factory=lambda: defaultdict(list))
    debt: int = 0
    now: datetime = NOW

    def usable(self) -> list[_Grant]:
        alive = [g for g in self.grants if not g.expires_at or g.expires_at > self.now]
        far = NOW + 9999 * DAY
        order = {id(g): place for place, g in enumerate(self.grants)}
        return sorted(alive, key=lambda g: (g.expires_at or far, order[id(g)]))

    def expire(self) -> None:
        for grant in self.grants:
            if grant.expires_at and grant.expires_at <= self.now:
                grant.expired += grant.available
                grant.available = 0

    def repay(self) -> None:
        for grant in self.usable():
            part = min(grant.available, self.debt)
            grant.available -= part
            grant.spent += part
            self.debt -= part

    def lease(self, holder: str, amount: int) -> int:
        self.expire()
        if sum(g.available for g in self.usable()) < amount:
            return 0
        left, lease = amount, list[_Share]()
        for grant in self.usable():
            part = min(grant.available, left)
            if part:
                grant.available -= part
                grant.leased += part
                left -= part
                lease.append(_Share(grant, part))
        self.leases[holder].append(lease)
        return amount

    def settle(self, holder: str, amount: int) -> int:
        left = amount
        for share in chain.from_iterable(self.leases[holder]):
            part = min(share.left, left)
            share.left -= part
            share.grant.leased -= part
            share.grant.spent += part
            left -= part
        leased = amount - left
        for grant in self.usable():
            part = min(grant.available, left)
            grant.available -= part
            grant.spent += part
            left -= part
        self.debt += left
        return leased

    def give_back(self, holder: str, amount: int | None) -> int:
        shares = list(chain.from_iterable(self.leases[holder]))
        left = back = sum(share.left for share in shares)
        if amount is not None:
            left = back = min(back, amount)
        for share in reversed(shares):
            part = min(share.left, left)
            share.left -= part
            share.grant.leased -= part
            share.grant.available += part
            left -= part
        self.expire()
        self.repay()
        return back

    def withdraw(self, amount: int) -> bool:
        if sum(g.available for g in self.usable()) < amount:
            return False
        self.expire()
        for grant in reversed(self.usable()):
            part = min(grant.available, amount)
            grant.available -= part
            grant.withdrawn += part
            amount -= part
        return True

    def all_grants(self) -> list[tuple[int, int, int, int, int]]:
        return [(g.available, g.leased, g.spent, g.expired, g.withdrawn) for g in self.grants]


async def _step(shop: Shop, owner: str, model: _Model, rng: random.Random, number: int) -> None:
    """One random act in both worlds; their answers must be equal."""
    act = rng.choice(("grant", "lease", "lease", "settle", "settle", "back", "take", "time"))
    holder, amount = rng.choice(("hld_a", "hld_b")), rng.randrange(1, 60)
    shop.now = model.now
    if act == "grant":
        expires = rng.choice((None, model.now + rng.randrange(1, 5) * DAY))
        await shop.grant(owner, amount, expires_at=expires, grant_id=f"crd_{number:04d}")
        model.grants.append(_Grant(amount, expires))
        repaid = min(model.debt, amount)
        model.grants[-1].available -= repaid
        model.grants[-1].spent += repaid
        model.debt -= repaid
    elif act == "lease":
        answer = await shop.lease(owner, amount, holder_id=holder)
        assert answer.amount_e10 == model.lease(holder, amount)
    elif act == "settle":
        (booked,) = await shop.settle(row(owner, amount, shop=shop, holder_id=holder))
        assert booked.leased_e10 == model.settle(holder, amount)
    elif act == "back":
        part = rng.choice((None, amount))
        assert await shop.give_back(owner, part, holder) == model.give_back(holder, part)
    elif act == "take":
        try:
            await shop.withdraw(owner, amount)
        except LavaError:
            assert not model.withdraw(amount)
        else:
            assert model.withdraw(amount)
    else:
        model.now += DAY / 2


@pytest.mark.parametrize("seed", range(4))
async def test_a_model_agrees(shop: Shop, seed: int) -> None:
    rng = random.Random(seed)
    owner = await shop.customer()
    model = _Model()
    for number in range(120):
        await _step(shop, owner, model, rng, number)
        assert (await shop.debt(owner))[0] == model.debt, f"seed {seed}, step {number}"
        assert await shop.grants(owner) == model.all_grants(), f"seed {seed}, step {number}"
        if number % 30 == 29:
            await sound(shop.database)
    assert model.debt == 0 or not any(g.available for g in model.usable())
