"""Planted errors in the product, each of which a rig must find: a rig that finds none is no proof.

Most are planted under the simulation, which runs seeds until one fails. The others are in code that
the simulation replaces (SQL) or cannot tell apart; there a test of the suite must fail.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import test_credit
import test_replay
import test_settle
from books_kit import Shop, open_shop
from test_simulation import patch, run_seed

from lava_proxy.books import renewal, replay, segment
from lava_proxy.books.account import Account, Hold
from lava_proxy.books.journal import Journal
from lava_proxy.books.leases import Leases
from lava_proxy.books.writer import Writer
from lava_proxy.rules.settlement import Booked
from lava_proxy.store import credit, reaping, settle
from lava_proxy.store.database import Database, StoreConflict, StoreDown, StorePoison

SEEDS = 600
Plant = Callable[[pytest.MonkeyPatch], None]


def _nothing(*_args: Any, **_more: Any) -> None:
    return None


def no_progress(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(Journal, "progress", _nothing)


def no_sent(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(Journal, "sent", _nothing)


def no_hold_record(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(Journal, "hold", lambda self, facts: 1)


def a_hold_is_not_released(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(Hold, "release", _nothing)


def the_whole_hold_is_refunded(plant: pytest.MonkeyPatch) -> None:
    whole = Hold.release
    plant.setattr(Hold, "release", lambda self, charge_e10: whole(self, 0))


def an_extension_is_free(plant: pytest.MonkeyPatch) -> None:
    def extend(self: Hold, more_e10: int) -> bool:
        self.amount_e10 += more_e10
        return self.account.free_e10 >= more_e10

    plant.setattr(Hold, "extend", extend)


def an_await_between_check_and_subtract(plant: pytest.MonkeyPatch) -> None:
    async def hold(self: Leases, account: Account, least: int, amount: int, overdraft: int) -> Any:
        if account.free_e10 < amount:
            await self.cover(account, least, amount, overdraft)
        if account.free_e10 < least:
            return None
        await asyncio.sleep(0.001)
        account.free_e10 -= amount
        account.held_e10 += amount
        return Hold(self, account, amount, overdraft)

    plant.setattr(Leases, "hold", hold)


def credit_counts_before_the_answer(plant: pytest.MonkeyPatch) -> None:
    whole = Leases._go

    async def go(self: Leases, account: Account, least: int, amount: int, overdraft: int) -> Any:
        account.free_e10 += amount
        return await whole(self, account, least, amount, overdraft)

    plant.setattr(Leases, "_go", go)


def leases_last_for_ever(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(Leases, "in_time", lambda self, account: True)


def a_renewal_is_believed(plant: pytest.MonkeyPatch) -> None:
    def renewed(leases: Leases, owner_id: str, asked_s: float, there: int) -> None:
        if owner_id in leases.accounts:
            leases.accounts[owner_id].expires_s = asked_s + leases.lease_s

    plant.setattr(renewal, "renewed", renewed)
    plant.setattr(renewal, "renewable", lambda leases, owner_id: True)


def a_stopped_worker_sends_on(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(Hold, "covered_at", lambda self, boot_s: True)


def a_charge_is_not_pending(plant: pytest.MonkeyPatch) -> None:
    def release(self: Hold, charge_e10: int) -> None:
        self.open = False
        self.account.held_e10 -= self.amount_e10
        self.account.free_e10 += self.amount_e10

    plant.setattr(Hold, "release", release)


def a_failed_batch_is_forgotten(plant: pytest.MonkeyPatch) -> None:
    whole = Writer._write

    async def write(self: Writer, batch: Any) -> None:
        try:
            await whole(self, batch)
        except (StoreDown, StoreConflict):
            for item in batch:
                item.booked = True
                call = item.settlement.call
                self._on_booked([(item, Booked(call.request_id, call.owner_id, 0, True))])

    plant.setattr(Writer, "_write", write)


def replay_bills_what_was_never_sent(plant: pytest.MonkeyPatch) -> None:
    whole = replay._Trace

    def trace() -> Any:
        made = whole()
        made.sent = True
        return made

    plant.setattr(replay, "_Trace", trace)


def replay_forgets_what_has_no_progress(plant: pytest.MonkeyPatch) -> None:
    whole = replay.read_folder
    plant.setattr(
        replay, "read_folder", lambda f, d: (r for r in whole(f, d) if r.kind != segment.SENT)
    )


def replay_deletes_before_it_books(plant: pytest.MonkeyPatch) -> None:
    whole = replay.replay_folder

    async def first(folder: Path, *more: Any, **how: Any) -> Any:
        records = list(replay.read_folder(folder))
        replay.remove_folder(folder)
        plant.setattr(replay, "read_folder", lambda _, damaged: iter(records))
        try:
            return await whole(folder, *more, **how)
        finally:
            plant.setattr(replay, "read_folder", _read_folder)

    plant.setattr(replay, "replay_folder", first)


_read_folder = replay.read_folder


def leases_are_judged_by_a_clock_that_was_set(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(reaping.Judge, "may", lambda self, database_s, boot_s: True)


SIMULATED: list[Plant] = [
    no_progress, no_sent, no_hold_record, a_hold_is_not_released, the_whole_hold_is_refunded,
    an_extension_is_free, an_await_between_check_and_subtract, credit_counts_before_the_answer,
    leases_last_for_ever, a_renewal_is_believed, a_stopped_worker_sends_on,
    a_charge_is_not_pending,
    a_failed_batch_is_forgotten, replay_bills_what_was_never_sent,
    replay_forgets_what_has_no_progress, replay_deletes_before_it_books,
    leases_are_judged_by_a_clock_that_was_set,
]  # fmt: skip


@pytest.mark.parametrize("mutant", SIMULATED, ids=lambda plant: plant.__name__)
def test_the_simulation_finds(
    mutant: Plant, monkeypatch: pytest.MonkeyPatch, memory: Path | None
) -> None:
    patch(monkeypatch)
    mutant(monkeypatch)
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(dir=memory) as base:
            for seed in range(1, SEEDS + 1):
                try:
                    run_seed(seed, Path(base, str(seed)), Counter())
                except AssertionError as found:
                    print(f"\n{mutant.__name__}: {str(found)[:150]}")
                    return
    finally:
        logging.disable(logging.NOTSET)
    pytest.fail(f"{mutant.__name__} survives {SEEDS} seeds")


def a_duplicate_is_booked_again(plant: pytest.MonkeyPatch) -> None:
    async def all_of_them(_conn: object, batch: list[object]) -> list[int]:
        return list(range(len(batch)))

    plant.setattr(settle, "claim_ids", all_of_them)


def debt_is_not_repaid_by_what_comes_back(plant: pytest.MonkeyPatch) -> None:
    async def repay(*_args: object) -> None:
        return None

    plant.setattr(credit, "repay", repay)


def a_lease_asked_for_twice_is_two(plant: pytest.MonkeyPatch) -> None:
    whole = credit.lease

    async def lease(conn: Any, ask: credit.LeaseAsk, now: Any) -> Any:
        fresh = dataclasses.replace(ask, lease_id=f"{ask.lease_id}-{id(conn)}-{now}-{len(seen)}")
        seen.append(fresh)
        return await whole(conn, fresh, now)

    seen: list[object] = []
    plant.setattr(credit, "lease", lease)


def replay_ignores_settle(plant: pytest.MonkeyPatch) -> None:
    whole = replay.read_folder
    plant.setattr(
        replay, "read_folder", lambda f, d: (r for r in whole(f, d) if r.kind != segment.SETTLE)
    )


def a_quarantined_row_is_thrown_away(plant: pytest.MonkeyPatch) -> None:
    async def gone(_database: object, row: Any, *_more: object) -> Booked:
        return Booked(row.call.request_id, row.call.owner_id, 0, False, quarantined=True)

    plant.setattr(replay, "set_apart", gone)


def a_tier_starts_anew_with_every_batch(plant: pytest.MonkeyPatch) -> None:
    whole = settle._read

    async def read(*args: Any) -> Any:
        _, heard = await whole(*args)
        return {}, heard

    plant.setattr(settle, "_read", read)


def somebody_elses_lease_pays(plant: pytest.MonkeyPatch) -> None:
    read, pay = settle._read, settle._pay

    def of_other(row: Any) -> Any:
        call = dataclasses.replace(row.call, holder_id="hld_other")
        return dataclasses.replace(row, call=call)

    async def other_read(conn: Any, fresh: Any, accounts: Any) -> Any:
        return await read(conn, [of_other(row) for row in fresh], accounts)

    async def other_pays(conn: Any, lines: Any, accounts: Any, now: Any) -> None:
        for line in lines:
            line.settlement = of_other(line.settlement)
        await pay(conn, lines, accounts, now)

    plant.setattr(settle, "_read", other_read)
    plant.setattr(settle, "_pay", other_pays)


IN_SQL: list[tuple[Plant, Callable[..., Awaitable[None]]]] = [
    (
        a_duplicate_is_booked_again,
        test_settle.test_an_id_is_booked_once_within_a_batch_and_across_batches,
    ),
    (debt_is_not_repaid_by_what_comes_back, test_credit.test_credit_that_comes_back_pays_old_debt),
    (
        a_lease_asked_for_twice_is_two,
        test_credit.test_the_same_lease_asked_for_again_is_not_doubled,
    ),
    (replay_ignores_settle, test_replay.test_the_last_thing_known_decides),
    (
        a_quarantined_row_is_thrown_away,
        test_replay.test_a_poison_row_is_quarantined_and_its_neighbours_are_booked,
    ),
    (
        a_tier_starts_anew_with_every_batch,
        test_settle.test_tiers_run_across_the_rows_of_one_batch_and_of_the_next,
    ),
    (somebody_elses_lease_pays, test_settle.test_only_the_admitting_process_leases_pay),
]


@pytest.mark.parametrize(("mutant", "test"), IN_SQL, ids=lambda value: value.__name__)
async def test_a_test_finds(
    mutant: Plant,
    test: Callable[..., Awaitable[None]],
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop: Shop = await open_shop(database)
    more = [tmp_path] if test.__module__ == "test_replay" else []
    if more:
        await test_replay.insert_meter(database, shop, test_replay.TIERS)
    mutant(monkeypatch)
    with pytest.raises((AssertionError, StorePoison)) as found:
        await test(shop, *more)
    print(f"\n{mutant.__name__}: {test.__name__}: {str(found.value)[:100]}")
