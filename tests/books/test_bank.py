"""A process's books put together, on a real database: memory and tables say the same, always."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from books_kit import (
    NOW,
    UNIT_METER,
    Shop,
    fetch,
    insert_meter,
    make_books,
    make_call,
    meter,
    open_shop,
    row,
    sound,
)

from lava_proxy.books.bank import Books
from lava_proxy.books.journal import HOLD, SETTLE, JournalError, read_folder
from lava_proxy.books.leases import Hold, Refusal
from lava_proxy.books.renewal import to_renew
from lava_proxy.core.clock import ManualClock
from lava_proxy.core.errors import LavaError
from lava_proxy.rules.settlement import Booked, Meter, Settlement
from lava_proxy.store import credit
from lava_proxy.store.database import Connection, Database, StoreBroken, StoreDown

METER = meter((0, 33_333_333), (3000, 250_000_001))


@pytest.fixture
async def shop(database: Database) -> Shop:
    shop = await open_shop(database)
    await insert_meter(database, shop, METER)
    return shop


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=NOW)


@asynccontextmanager
async def running(
    database: Database, clock: ManualClock, folder: Path, **changes: object
) -> AsyncIterator[Books]:
    books = make_books(database, clock, folder, **changes)
    await books.open()
    try:
        yield books
    finally:
        await books.close()


class Teller:
    """Calls through the books, as the proxy makes them."""

    def __init__(self, books: Books, shop: Shop, owner: str, by: Meter = METER) -> None:
        self.books, self.shop, self.owner, self.by = books, shop, owner, by
        self.open: list[tuple[int, str, Hold]] = []

    async def start(self, least_e10: int, want_e10: int) -> bool:
        leases = self.books.leases
        held = await leases.hold(leases.account(self.owner), least_e10, want_e10, 0)
        if isinstance(held, Refusal):
            return False
        made = make_call(
            self.owner, shop=self.shop, by=self.by, holder_id=self.books.journal.holder_id
        )
        seq = self.books.admit(made)
        self.books.journal.sent(seq)
        self.open.append((seq, made.request_id, held))
        return True

    def end(self, place: int, tokens: int, *, status: str = "completed") -> int:
        """Settle with so many tokens; answers the bound of their charge."""
        seq, request_id, hold = self.open.pop(place)
        made = row(
            self.owner,
            tokens,
            shop=self.shop,
            by=self.by,
            request_id=request_id,
            holder_id=self.books.journal.holder_id,
            status=status,
        )
        highest = max(tier.rate_e12 for tier in self.by.tariff.tiers)
        estimate = 0 if status == "error" else -(-tokens * highest // 10**8)
        self.books.settle(seq, made, hold, estimate)
        return estimate

    async def quiet(self) -> None:
        """No trip and no batch is under way."""
        await self.books.leases.close()
        await self.books.writer.flush()

    async def check(self) -> None:
        """The invariant: what we believe is what the database says is left of our leases."""
        await self.quiet()
        account = self.books.leases.accounts.get(self.owner)
        mine = account.free_e10 + account.held_e10 + account.pending_e10 if account else 0
        assert mine == await self.shop.left_of(self.owner, self.books.journal.holder_id)


async def test_a_call_from_admission_to_the_ledger(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database
) -> None:
    owner = await shop.customer(10_000)
    heard: list[tuple[Settlement, Booked]] = []
    async with running(database, clock, tmp_path) as books:
        books._on_booked = heard.extend
        teller = Teller(books, shop, owner)
        assert await teller.start(100, 100)
        assert books.condition.state() == "normal"
        kinds = [record.kind for record in read_folder(books.journal.folder)]
        assert kinds[0] == HOLD
        teller.end(0, 300)
        assert [r.kind for r in read_folder(books.journal.folder)][-1] == SETTLE
        await teller.check()
        assert books.journal.open_calls == 0
        ((_, booked),) = heard
        assert (booked.charge_e10, booked.leased_e10, booked.fresh) == (100, 100, True)
        folder = books.journal.folder
    assert not folder.exists()
    assert await shop.grants(owner) == [(9900, 0, 100, 0, 0)]
    await sound(database)


@pytest.mark.parametrize("seed", range(3))
async def test_memory_and_tables_agree_after_any_sequence(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database, seed: int
) -> None:
    rng = random.Random(seed)
    owner = await shop.customer(3000)
    async with running(database, clock, tmp_path, refusal_cache_s=0.0) as books:
        teller = Teller(books, shop, owner)
        for step in range(150):
            await _step(teller, rng, clock)
            if step % 5 == 4:
                await teller.check()
        while teller.open:
            teller.end(0, rng.randrange(500))
        await teller.check()
    await shop.give_back(owner, holder_id="hld_other")
    found = await sound(database)
    assert found.leased_e10 == 0


async def _step(teller: Teller, rng: random.Random, clock: ManualClock) -> None:
    books, shop, owner = teller.books, teller.shop, teller.owner
    act = rng.random()
    if act < 0.4:
        want = rng.randrange(1, 300)
        await teller.start(rng.choice((1, want)), want)
    elif act < 0.7 and teller.open:
        place = rng.randrange(len(teller.open))
        tokens = rng.randrange(1500)  # often more than was held
        teller.end(place, tokens, status="error" if rng.random() < 0.1 else "completed")
    elif act < 0.8 and teller.open:
        hold = rng.choice(teller.open)[2]
        if rng.random() < 0.5:
            hold.extend(rng.randrange(1, 200))
        else:
            await hold.extend_soon(1, rng.randrange(1, 200), 5.0)
    elif act < 0.84:
        await shop.grant(owner, rng.randrange(1, 1500))
    elif act < 0.88:
        await shop.lease(owner, rng.randrange(1, 200), holder_id="hld_other")
        await shop.give_back(owner, rng.randrange(1, 200), "hld_other")
    elif act < 0.92:
        report = row(owner, rng.randrange(50), shop=shop, holder_id="", content_hash=b"h")
        await books.writer.book(report)
    else:
        clock.advance(rng.choice((1, 30, 200, 330, 400)))
        for account in books.leases.idle_accounts(20.0):
            if account.idle:
                await books.leases.give_back(account)
        for renewing in to_renew(books.leases):
            await books.renew(renewing)


async def test_overspend_is_no_more_than_what_calls_went_beyond_their_holds(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database
) -> None:
    """Two processes, one customer, calls that stay within their holds: credit never ends below
    zero, and everything that could be spent was."""
    owner = await shop.customer(5000)
    async with (
        running(database, clock, tmp_path / "a", refusal_cache_s=0.0) as one,
        running(database, clock, tmp_path / "b", refusal_cache_s=0.0) as two,
    ):
        tellers = [Teller(books, shop, owner, UNIT_METER) for books in (one, two)]
        rng = random.Random(7)

        async def calls(teller: Teller) -> None:
            for _ in range(60):
                if await teller.start(100, 100):
                    await asyncio.sleep(0)
                    teller.end(-1, rng.randrange(80, 101))
                else:
                    await teller.quiet()

        await asyncio.gather(*(calls(teller) for teller in tellers))
        for teller in tellers:
            await teller.check()
    found = await sound(database)
    assert found.debt_e10 == 0
    assert found.available_e10 < 100 + 2 * 100


# States ----------------------------------------------------------------------------------------


async def test_the_database_away(
    shop: Shop, clock: ManualClock, tmp_path: Path, database_url: str
) -> None:
    """Leased credit goes on; who has none gets 503; nothing is lost."""
    database = Database(database_url, size=2)
    await database.open()
    owner, cold = await shop.customer(100_000), await shop.customer(100_000)
    async with running(database, clock, tmp_path, lease_burn_s=3600.0) as books:
        teller = Teller(books, shop, owner)
        books.leases.account(owner).spent(10_000, clock.boot_s(), 3600.0)
        assert await teller.start(100, 100)
        await teller.quiet()
        await database.close()  # every transaction fails from here on
        assert await teller.start(100, 100)
        teller.end(0, 30)
        async with asyncio.timeout(10):
            while books.writer.failing_since_s is None:
                await asyncio.sleep(0.001)
        assert books.condition.state() == "normal"  # it may be a hiccup
        clock.advance(1.1)
        assert books.condition.state() == "leases"
        assert await teller.start(100, 100)
        with pytest.raises(LavaError) as refused:
            await Teller(books, shop, cold).start(100, 100)
        assert refused.value.status == 503
        await books.leases.give_back(books.leases.account(cold))  # left to the lease's end
        assert books.writer.depth == 1
        await database.open()
        await books.writer.flush()
        assert books.condition.state() == "normal"
        while teller.open:
            teller.end(0, 0, status="error")
        await teller.check()
    await database.close()
    await sound(shop.database)


async def test_a_lease_whose_answer_was_lost_is_not_taken_twice(
    shop: Shop,
    clock: ManualClock,
    tmp_path: Path,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = await shop.customer(1000)
    async with running(database, clock, tmp_path) as books:
        whole, lost = credit.lease, [True]

        async def committed_but_lost(conn: Connection, ask: credit.LeaseAsk, now: object) -> object:
            answer = await whole(conn, ask, NOW)
            if lost:
                lost.pop()
                await conn.execute("COMMIT")
                raise StoreDown("the connection is gone")
            return answer

        monkeypatch.setattr(credit, "lease", committed_but_lost)
        teller = Teller(books, shop, owner)
        assert await teller.start(100, 100)
        monkeypatch.undo()
        await teller.check()
        teller.end(0, 30)
        await teller.check()
    await sound(database)


async def test_a_journal_that_fails_closes_the_books(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database
) -> None:
    owner = await shop.customer(1000)
    async with running(database, clock, tmp_path) as books:
        teller = Teller(books, shop, owner)
        assert await teller.start(100, 100)
        whole = books.journal._append

        def full(kind: int, payload: bytes) -> None:
            books.journal.failed = "journal write: No space left on device"
            raise JournalError(books.journal.failed)

        books.journal._append = full  # type: ignore[method-assign]
        with pytest.raises(LavaError) as refused:
            await teller.start(100, 100)
        assert refused.value.status == 503
        assert books.condition.state() == "closed"
        with pytest.raises(LavaError, match="closed"):
            books.condition.refuse_if_closed()
        teller.end(0, 30)  # a call under way is booked all the same
        await books.writer.flush()
        assert (await sound(database)).requests == 1
        books.journal._append = whole  # type: ignore[method-assign]


async def test_a_row_that_json_cannot_hold_is_kept_all_the_same(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database
) -> None:
    owner = await shop.customer(1000)
    async with running(database, clock, tmp_path) as books:
        teller = Teller(books, shop, owner)
        assert await teller.start(100, 100)
        seq, request_id, hold = teller.open.pop()
        odd = row(owner, 5, shop=shop, by=METER, request_id=request_id, model="\ud800")
        books.settle(seq, odd, hold, 2)
        await books.writer.flush()
        assert books.condition.state() == "normal"
        assert books.leases.account(owner).held_e10 == 0
        assert await fetch(database, "SELECT request_id FROM quarantine") == [(request_id,)]
        left = await shop.left_of(owner, books.journal.holder_id)
        account = books.leases.account(owner)
        assert account.free_e10 + account.pending_e10 <= left  # careful until it is looked at
    assert (await sound(database)).leased_e10 == 0


async def test_a_writer_that_stops_closes_the_books_and_the_rows_stay_in_the_journal(
    shop: Shop,
    clock: ManualClock,
    tmp_path: Path,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lava_proxy.books import writer

    owner = await shop.customer(1000)

    async def broken(*args: object) -> object:
        raise StoreBroken("no such column")

    async with running(database, clock, tmp_path) as books:
        teller = Teller(books, shop, owner)
        assert await teller.start(100, 100)
        with monkeypatch.context() as patch:
            patch.setattr(writer, "settle", broken)
            teller.end(0, 60)
            await books.writer.flush()
        assert books.condition.state() == "closed"
    assert await shop.left_of(owner, books.journal.holder_id) > 0  # until it is replayed
    async with running(database, clock, tmp_path):
        pass
    found = await sound(database)
    assert (found.requests, found.spent_e10, found.leased_e10) == (1, 20, 0)


async def test_a_queue_that_is_full_closes_the_books(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database
) -> None:
    books = make_books(database, clock, tmp_path, writer_queue_rows=2)
    for _ in range(2):
        assert books.condition.state() == "normal"
        books.record(row(shop.merchant_id, shop=shop, customer=False))
    assert books.condition.state() == "closed"
    await books.open()
    await books.writer.flush()
    assert books.condition.state() == "normal"
    await books.close()


async def test_what_changed_before_the_start_is_no_news(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database
) -> None:
    """Else the first look at the change feed forgot who was just looked up: with the database away
    a moment later, a customer whose credit is at hand was refused."""
    async with running(database, clock, tmp_path) as books:
        owner = await shop.customer()
        await books.directory.poll()
    async with running(database, clock, tmp_path) as books:
        known = await books.directory.customer(shop.merchant_id, owner)
        await books.directory.poll()
        assert known is not None
        assert await books.directory.customer(shop.merchant_id, owner) is known


# Prices ----------------------------------------------------------------------------------------


async def test_prices_are_read_anew_after_a_change(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database
) -> None:
    async with running(database, clock, tmp_path) as books:
        await books.directory.poll()
        assert not books.prices_stale
        before = books.prices.of("mer_1").rates("openai", "gpt-4o-mini", NOW)
        await fetch(
            database,
            "INSERT INTO price_overrides (override_id, provider, match, model, rates, "
            "effective_from) VALUES "
            "('o1', 'openai', 'exact', 'gpt-4o-mini', '{\"input_1m\": \"1\"}', $1), "
            "('o2', 'openai', 'exact', 'gpt-4o-mini', '{\"no_such_unit\": \"1\"}', $1)",
            NOW,
        )
        await books.directory.poll()
        assert books.prices_stale
        await books.refresh_prices()
        after = books.prices.of("mer_1").rates("openai", "gpt-4o-mini", NOW)
        assert before is not None
        assert after is not None
        assert (before.version[:5], after.version) == ("genai", "override/o1")


async def test_what_is_learned_about_models_outlives_the_process(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database
) -> None:
    async with running(database, clock, tmp_path / "one") as books:
        for _ in range(40):
            books.learned.learn("openai", "m", 1000, 1500)
    async with running(database, clock, tmp_path / "two") as books:
        taught = books.learned.factor_e3("openai", "m")
        assert taught > 1400
        books.learned.learn("openai", "m", 1000, 1000)
        lower = books.learned.factor_e3("openai", "m")
        await books.share_learned()
        assert lower < books.learned.factor_e3("openai", "m") < taught  # the mean of both


# The end ---------------------------------------------------------------------------------------


async def test_closing_without_a_database_leaves_all_to_the_next_process(
    shop: Shop, clock: ManualClock, tmp_path: Path, database_url: str
) -> None:
    database = Database(database_url, size=2)
    await database.open()
    owner = await shop.customer(1000)
    books = make_books(database, clock, tmp_path, drain_timeout_s=0.0)
    await books.open()
    teller = Teller(books, shop, owner)
    assert await teller.start(100, 100)
    await teller.quiet()
    await database.close()
    teller.end(0, 60)
    books.writer._closing = True
    books.settings.__dict__["drain_timeout_s"] = -4.9  # do not wait long for what cannot be
    await books.close()
    assert books.journal.folder.is_dir()
    await database.open()
    async with running(database, clock, tmp_path):
        pass
    await database.close()
    found = await sound(shop.database)
    assert (found.requests, found.spent_e10, found.leased_e10) == (1, 20, 0)


async def test_backends_die_while_calls_go_on(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database, database_url: str
) -> None:
    owner = await shop.customer(100_000)
    axe = await asyncpg.connect(database_url)
    async with running(database, clock, tmp_path, refusal_cache_s=0.0) as books:
        teller = Teller(books, shop, owner)
        started = 0
        for number in range(60):
            if number % 10 == 5:
                await axe.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            with suppress(LavaError):
                if await teller.start(50, 50):
                    started += 1
                    teller.end(-1, 30)
        async with asyncio.timeout(20):
            await teller.quiet()
        account = books.leases.account(owner)
        believed = account.free_e10 + account.held_e10 + account.pending_e10
        assert believed <= await shop.left_of(owner, books.journal.holder_id)
        assert started > 40
    await axe.close()
    found = await sound(database)
    assert found.requests == started
    assert found.leased_e10 == 0


# Recall ----------------------------------------------------------------------------------------


async def test_idle_credit_of_another_process_is_recalled_before_a_refusal(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database
) -> None:
    owner = await shop.customer(1000)
    async with (
        running(database, clock, tmp_path / "a", recall_wait_s=10.0) as one,
        running(database, clock, tmp_path / "b", recall_wait_s=10.0) as two,
    ):
        rich, poor = Teller(one, shop, owner), Teller(two, shop, owner)
        assert await rich.start(900, 900)
        await rich.quiet()  # which leased the rest in the background
        rich.end(0, 300)
        await rich.check()
        ready = [asyncio.Event(), asyncio.Event()]
        listening = [
            asyncio.create_task(database.listen({"lava_recall": _answering(one, ready[0])})),
            asyncio.create_task(database.listen({"lava_credit": _looking_again(two, ready[1])})),
        ]
        async with asyncio.timeout(20):
            for event in ready:
                await event.wait()
            assert await poor.start(500, 500)
        await rich.check()
        await poor.check()
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        poor.end(0, 100)
    found = await sound(database)
    assert (found.spent_e10, found.debt_e10, found.leased_e10) == (133, 0, 0)


def _answering(books: Books, ready: asyncio.Event) -> Callable[[str | None], None]:
    tasks: set[asyncio.Task[None]] = set()

    def heard(payload: str | None) -> None:
        if payload is None:
            ready.set()  # it listens now
        else:
            tasks.add(asyncio.create_task(books.recalls.answer(books.leases, payload)))

    return heard


def _looking_again(books: Books, ready: asyncio.Event) -> Callable[[str | None], None]:
    def heard(payload: str | None) -> None:
        if payload is None:
            ready.set()
        else:
            books.recalls.heard(payload)

    return heard


async def test_a_call_waiting_for_a_recall_keeps_its_account(
    shop: Shop, clock: ManualClock, tmp_path: Path, database: Database
) -> None:
    owner = await shop.customer(1000)
    await shop.lease(owner, 900, holder_id="hld_other")
    async with running(database, clock, tmp_path, recall_wait_s=10.0) as books:
        teller = Teller(books, shop, owner)
        starting = asyncio.create_task(teller.start(500, 500))
        async with asyncio.timeout(10):
            while owner not in books.recalls._given:
                await asyncio.sleep(0.001)
        clock.advance(100)
        assert books.leases.idle_accounts(20.0) == []
        await shop.give_back(owner, holder_id="hld_other")
        books.recalls.heard(owner)
        assert await starting
        await teller.check()
        teller.end(0, 30)
    assert (await sound(database)).leased_e10 == 0
