"""After a crash: the last thing known of every call decides, once, however often it is replayed."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from books_kit import E12, Shop, fetch, insert_meter, make_call, meter, open_shop, row, sound

from lava_proxy.books import replay as module
from lava_proxy.books.codec import decode_call, decode_result, encode_call, encode_result
from lava_proxy.books.folder import lock_folder
from lava_proxy.books.journal import Journal, JournalError
from lava_proxy.books.replay import replay_folder, take_over
from lava_proxy.core.clock import ManualClock
from lava_proxy.core.ids import new_id
from lava_proxy.core.money import E10
from lava_proxy.rules.limits import Limit
from lava_proxy.rules.pricebook import PriceBook
from lava_proxy.rules.settlement import Call, Settlement
from lava_proxy.store import credit
from lava_proxy.store.credit import LeaseAsk
from lava_proxy.store.database import Database, StoreConflict
from lava_proxy.store.settle import settle

CLOCK = ManualClock(start=datetime(2026, 11, 23, tzinfo=UTC))
PRICES = PriceBook()
TIERS = meter((0, 100_000_000), (10, 300_000_000))


@pytest.fixture
async def shop(database: Database) -> Shop:
    shop = await open_shop(database)
    await insert_meter(database, shop, TIERS)
    return shop


def _journal(folder: Path, segment_bytes: int = 65536) -> Journal:
    return Journal(folder / "journals" / "hld_dead", segment_bytes=segment_bytes)


def _call(shop: Shop, owner: str, request_id: str, **more: object) -> Call:
    return make_call(
        owner,
        shop=shop,
        by=TIERS,
        request_id=request_id,
        holder_id="hld_dead",
        model="gpt-4o-mini",
        **more,  # type: ignore[arg-type]
    )


async def _rows(shop: Shop) -> dict[object, tuple[object, ...]]:
    rows = await fetch(
        shop.database,
        "SELECT request_id, outcome, usage_source, input_tokens, output_tokens, charge_e10 "
        "FROM requests",
    )
    return {made[0]: made[1:] for made in rows}


async def _dead_folder(shop: Shop, tmp_path: Path) -> tuple[str, Path]:
    """A customer, and the folder of a process that died with calls in every state."""
    owner = await shop.customer(10**6)
    await shop.lease(owner, 5000, holder_id="hld_dead")
    journal = _journal(tmp_path)
    journal.hold(encode_call(_call(shop, owner, "req_held", input_tokens=5)))
    sent = journal.hold(encode_call(_call(shop, owner, "req_sent", input_tokens=7)))
    journal.sent(sent)
    running = journal.hold(encode_call(_call(shop, owner, "req_running", input_tokens=7)))
    journal.sent(running)
    settled = row(owner, 4, shop=shop, by=TIERS, request_id="req_settled", holder_id="hld_dead")
    ended = journal.hold(encode_call(settled.call))
    journal.progress(running, 3, 1, 0, 0)
    journal.sent(ended)
    journal.progress(ended, 100, 100, 0, 0)
    journal.settle(ended, encode_result(settled))
    journal.progress(running, 3, 2, 0, 0)
    void = row(owner, 0, shop=shop, request_id="req_void", status="error", outcome="void")
    journal.settle(journal.hold(encode_call(void.call)), encode_result(void))
    journal.close()
    return owner, journal.folder


EXPECTED = {
    "req_sent": ("recovered", "estimate", 7, 0),
    "req_running": ("recovered", "estimate", 3, 2),
    "req_settled": ("completed", "provider", 4, 0),
    "req_void": ("void", "provider", 0, 0),
}
"""16 tokens are charged: ten in the first tier, six in the next, whatever their order."""


async def test_the_last_thing_known_decides(shop: Shop, tmp_path: Path) -> None:
    owner, folder = await _dead_folder(shop, tmp_path)
    (done,) = await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
    assert (done.holder_id, done.calls, done.booked, done.void) == ("hld_dead", 5, 4, 1)
    rows = await _rows(shop)
    assert {name: made[:-1] for name, made in rows.items()} == EXPECTED
    assert not folder.exists()
    assert await shop.left_of(owner, "hld_dead") == 0
    found = await sound(shop.database)
    assert found.leased_e10 == 0
    assert found.spent_e10 == 28


async def test_replaying_again_or_from_a_copy_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    _, folder = await _dead_folder(shop, tmp_path)
    copy = tmp_path / "restored" / folder.name
    shutil.copytree(folder, copy)
    first = await replay_folder(folder, shop.database, CLOCK, PRICES)
    before = await _rows(shop), await sound(shop.database)
    second = await replay_folder(folder, shop.database, CLOCK, PRICES)
    third = await replay_folder(copy, shop.database, CLOCK, PRICES)
    assert (first.booked, second.booked, third.booked) == (4, 0, 0)
    assert (await _rows(shop), await sound(shop.database)) == before


async def test_rows_that_the_writer_committed_are_not_booked_again(
    shop: Shop, tmp_path: Path
) -> None:
    owner, _ = await _dead_folder(shop, tmp_path)
    running = row(owner, 9, shop=shop, by=TIERS, request_id="req_running", holder_id="hld_dead")
    await shop.settle(running)  # its SETTLE was lost with the power, its commit was not
    (done,) = await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
    assert done.booked == 3
    assert (await _rows(shop))["req_running"] == ("completed", "provider", 9, 0, 9)
    await sound(shop.database)


async def test_a_living_process_is_left_alone(shop: Shop, tmp_path: Path) -> None:
    owner = await shop.customer(1000)
    await shop.lease(owner, 100, holder_id="hld_dead")
    living = _journal(tmp_path)
    living.sent(living.hold(encode_call(_call(shop, owner, "req_1", input_tokens=3))))
    assert await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES) == []
    assert await shop.left_of(owner, "hld_dead") == 100
    living.close()
    assert len(await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)) == 1


async def test_a_folder_without_a_segment_is_not_touched(shop: Shop, tmp_path: Path) -> None:
    """Its process may be between making the folder and locking it."""
    young = tmp_path / "journals" / "hld_young"
    young.mkdir(parents=True)
    assert await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES) == []
    os.close(lock_folder(young))
    assert await take_over(tmp_path / "nothing", shop.database, CLOCK, PRICES) == []
    assert young.is_dir()


async def test_an_unknown_version_stops_and_is_kept(shop: Shop, tmp_path: Path) -> None:
    _, folder = await _dead_folder(shop, tmp_path)
    segment = folder / "00000001.journal"
    segment.write_bytes(b"LAVAJ999" + segment.read_bytes()[8:])
    with pytest.raises(JournalError, match="version"):
        await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
    assert segment.exists()
    assert await _rows(shop) == {}
    os.close(lock_folder(folder))


async def test_a_torn_tail_loses_no_call_before_it(shop: Shop, tmp_path: Path) -> None:
    _, folder = await _dead_folder(shop, tmp_path)
    segment = folder / "00000001.journal"
    data = segment.read_bytes().rstrip(b"\0")
    cut = data.rindex(b'["void"') - 20
    segment.write_bytes(data[:cut])
    done = await replay_folder(folder, shop.database, CLOCK, PRICES)
    assert done.booked == 3
    await sound(shop.database)


async def test_a_damaged_journal_is_booked_as_far_as_it_goes_and_kept(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for again in range(2):  # as from a backup
        _, folder = await _dead_folder(shop, tmp_path)
        segment = folder / "00000001.journal"
        rotten = bytearray(segment.read_bytes())
        rotten[rotten.index(b"req_settled")] ^= 1
        segment.write_bytes(rotten)
        (done,) = await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
        assert done.damaged == ("00000001.journal",)
        assert done.booked == (0 if again else 2)
        assert not folder.exists()
    assert set(await _rows(shop)) == {"req_sent", "req_running"}
    aside = tmp_path / "journals-damaged"
    assert {path.name for path in aside.iterdir()} == {"hld_dead", "hld_dead.1"}
    assert (aside / "hld_dead.1" / "00000001.journal").read_bytes() == bytes(rotten)
    assert "kept in" in caplog.text
    assert await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES) == []
    await sound(shop.database)


async def test_a_call_spread_over_segments(shop: Shop, tmp_path: Path) -> None:
    owner = await shop.customer(10**6)
    journal = _journal(tmp_path, segment_bytes=300)
    long = journal.hold(encode_call(_call(shop, owner, "req_long", input_tokens=1)))
    for number in range(6):
        other = row(owner, 1, shop=shop, by=TIERS, request_id=f"req_{number}")
        seq = journal.hold(encode_call(other.call))
        journal.settle(seq, encode_result(other))
        journal.progress(long, number, 1, 0, 0)
        if number % 2:
            await shop.settle(other)
            journal.committed(seq)
    journal.close()
    assert len(list(journal.folder.glob("*.journal"))) > 2
    (done,) = await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
    assert done.booked == 4
    assert (await _rows(shop))["req_long"][2:4] == (5, 1)
    await sound(shop.database)


async def test_a_price_is_found_again_and_a_percentage_charged(shop: Shop, tmp_path: Path) -> None:
    percent = meter((0, 150 * E12), rate_type="percentage", meter_id="prd_percent")
    await insert_meter(shop.database, shop, percent)
    owner = await shop.customer(E10)
    journal = _journal(tmp_path)
    for request_id, model in (("req_known", "gpt-4o-mini"), ("req_unknown", "no-such-model")):
        made = make_call(
            owner, shop=shop, by=percent, request_id=request_id, model=model, input_tokens=1000
        )
        journal.sent(journal.hold(encode_call(made)))
    journal.close()
    await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
    rows = await fetch(
        shop.database, "SELECT cost_e10, charge_e10, flags, price_version FROM requests ORDER BY 1"
    )
    assert rows[0] == (0, 0, ["unpriced"], None)
    cost_e10, charge_e10, flags, version = rows[1]
    assert isinstance(cost_e10, int)
    assert cost_e10 > 0
    assert charge_e10 == (cost_e10 * 3 + 1) // 2
    assert (flags, str(version)[:12]) == ([], "genai-prices")
    await sound(shop.database)


async def _background(
    shop: Shop,
    tmp_path: Path,
    *,
    settled: bool = False,
    key_type: str = "managed",
    keeps: bool = False,
    runs_on: bool = True,
) -> tuple[str, Settlement]:
    """A customer, the row of a call that reads a response in the background, and the folder of a
    process that died while it streamed that response (or behind its end)."""
    owner = await shop.customer(10**6)
    journal = _journal(tmp_path)
    call = replace(
        _call(shop, owner, "req_made", input_tokens=7),
        provider="openai",
        provider_key_type=key_type,  # type: ignore[arg-type]
    )
    seq = journal.hold(encode_call(call))
    journal.sent(seq)
    kept = {"keeps": ((owner, 3000),), "keeps_s": 60} if keeps else {}
    named = replace(call, object_id="resp_1", runs_on=runs_on, **kept)  # type: ignore[arg-type]
    journal.amend(seq, encode_call(named))
    journal.progress(seq, 3, 40, 0, 0)
    whole = row(owner, 100, shop=shop, by=TIERS, request_id="req_read")
    whole = replace(whole, call=replace(whole.call, provider="openai"), metered_object="resp_1")
    if settled:
        made = replace(whole, call=call)
        journal.settle(seq, encode_result(made))
    journal.close()
    return owner, replace(whole, reads_object=True)


@pytest.mark.parametrize("runs_on", [True, False])
@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("read_first", [False, True])
async def test_a_stored_response_is_charged_whole_and_once(
    shop: Shop, tmp_path: Path, settled: bool, read_first: bool, runs_on: bool
) -> None:
    """Its stream died with its process; another process reads it by its id, whether it ran in the
    background or its provider ended it with the stream."""
    _, read = await _background(shop, tmp_path, settled=settled, runs_on=runs_on)
    if read_first:
        await shop.settle(read)
    await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
    again = replace(read, call=replace(read.call, request_id="req_again"))
    await shop.settle(again)
    if not read_first:
        await shop.settle(read)
    rows = await _rows(shop)
    charged = {name: made[2] + made[3] for name, made in rows.items() if made[4]}  # type: ignore[operator]
    parts = {"req_made": 43, "req_again": 57}  # a crash leaves what was streamed until then
    whole_by = "req_read" if read_first else "req_made"
    assert charged == (parts if not (settled or read_first) else {whole_by: 100})
    assert rows["req_made"][0] == ("completed" if settled else "recovered")
    assert (await sound(shop.database)).spent_e10 == 10 + 90 * 3
    flags = await fetch(shop.database, "SELECT flags FROM requests WHERE request_id = 'req_made'")
    before = ["metered_before"] if read_first else []
    assert flags == [
        (
            [*before, *(["unbilled"] if before else [])]
            if settled
            else [*(["background"] if runs_on else []), *before],
        )
    ]


MONEY, WALLET = "ftk_1:money:total", "wal_1:wallet"


async def _limit(shop: Shop, owner_id: str, amount: int) -> None:
    """A limit of 10^6, of which the dead process leased so much."""
    limit = Limit(shop.merchant_id, 10**6)
    ask = LeaseAsk(new_id("lease"), owner_id, "hld_dead", 1, amount, 0, 0, 300.0, limit)
    async with shop.database.transaction() as conn:
        await credit.lease(conn, ask, shop.now)


@pytest.mark.parametrize("settled", [True, False])
async def test_all_that_it_held_waits_for_it_after_a_crash_too(
    shop: Shop, tmp_path: Path, settled: bool
) -> None:
    """Its call was over and not booked, or still ran: then all is kept that it held."""
    owner = await shop.customer(10**6)
    await shop.lease(owner, 5000, holder_id="hld_dead")
    await _limit(shop, MONEY, 4000)
    await _limit(shop, WALLET, 4000)
    journal = _journal(tmp_path)
    call = replace(
        _call(shop, owner, "req_made", input_tokens=0),
        provider="openai",
        budgets=(("money", MONEY), ("wallet", WALLET)),
    )
    seq = journal.hold(encode_call(call))
    journal.sent(seq)
    keeps = ((MONEY, 2000), (WALLET, 2500), (owner, 3000))
    if settled:
        queued = row(owner, 0, shop=shop, by=TIERS, request_id="req_made")
        queued = replace(queued, call=call, metered_object="resp_1", metered="part")
        journal.settle(seq, encode_result(replace(queued, keeps=keeps, keeps_s=60)))
    else:
        call = replace(call, object_id="resp_1", runs_on=True, keeps=keeps, keeps_s=60)
        journal.amend(seq, encode_call(call))
        journal.progress(seq, 0, 40, 0, 0)
    journal.close()
    for _ in range(2):
        await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
    open_leases = (
        "SELECT owner_id, holder_id, amount_e10 FROM leases WHERE closed_at IS NULL ORDER BY 3"
    )
    kept = "kept:openai:resp_1"
    assert await fetch(shop.database, open_leases) == [(o, kept, most) for o, most in keeps]
    await sound(shop.database)
    read = row(owner, 100, shop=shop, by=TIERS, request_id="req_read")
    read = replace(read, call=replace(read.call, provider="openai"), metered_object="resp_1")
    await shop.settle(replace(read, reads_object=True))
    assert await fetch(shop.database, open_leases) == []
    await sound(shop.database)
    assert sum(made[4] for made in (await _rows(shop)).values()) == 10 + 90 * 3  # type: ignore[misc]


async def test_what_is_over_by_then_is_not_waited_for(shop: Shop, tmp_path: Path) -> None:
    owner, read = await _background(shop, tmp_path, keeps=True)
    await shop.lease(owner, 5000, holder_id="hld_dead")
    await shop.settle(read)
    await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
    assert await fetch(shop.database, "SELECT 1 FROM leases WHERE closed_at IS NULL") == []
    await sound(shop.database)


async def test_a_journal_of_before_knew_credit_and_the_background_only(shop: Shop) -> None:
    owner = await shop.customer(10**6)
    call = _call(shop, owner, "req_made")
    facts = orjson.loads(encode_result(row(owner, 0, shop=shop)))
    facts[18:] = [3000, 60]
    assert decode_result(orjson.dumps(facts), call).keeps == ((owner, 3000),)
    facts[18:] = [0, 0]
    assert decode_result(orjson.dumps(facts), call).keeps == ()
    hold = orjson.loads(encode_call(replace(call, keeps=((owner, 1),), keeps_s=1)))
    assert decode_call(orjson.dumps(hold), "hld", TIERS).keeps == ((owner, 1),)
    assert decode_call(orjson.dumps(hold[:19]), "hld", TIERS).keeps == ()
    hold[18] = "resp_1"
    assert decode_call(orjson.dumps(hold[:19]), "hld", TIERS).runs_on
    assert not decode_call(orjson.dumps(hold), "hld", TIERS).runs_on


@pytest.mark.parametrize("key_type", ["managed", "unmanaged"])
async def test_it_still_has_an_owner(shop: Shop, tmp_path: Path, key_type: str) -> None:
    owner, _ = await _background(shop, tmp_path, key_type=key_type)
    await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
    made = await fetch(shop.database, "SELECT object_id, customer_id FROM provider_objects")
    assert made == ([("resp_1", owner)] if key_type == "managed" else [])


async def test_makers_are_charged_whatever_ids_their_provider_gives(shop: Shop) -> None:
    """Only a read that was charged makes its maker free."""
    owner = await shop.customer(10**6)
    rows = [row(owner, 5, shop=shop, by=TIERS, request_id=f"req_{n}") for n in range(3)]
    for made in rows[:2]:
        await shop.settle(replace(made, metered_object="same"))
    await shop.settle(replace(rows[2], metered_object="same", reads_object=True))
    assert [made[2] for made in (await _rows(shop)).values()] == [5, 5, 0]


async def test_a_poison_row_is_quarantined_and_its_neighbours_are_booked(
    shop: Shop, tmp_path: Path
) -> None:
    """Otherwise no process could start any more beside that folder."""
    owner = await shop.customer(10**6)
    journal = _journal(tmp_path)
    for number in range(7):
        made = row(
            owner,
            1,
            shop=shop,
            by=TIERS,
            request_id=f"req_{number}",
            model="nul\0" if number in (2, 5) else "m",
        )
        journal.settle(journal.hold(encode_call(made.call)), encode_result(made))
    journal.close()
    (done,) = await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
    assert done.booked == 7
    assert not journal.folder.exists()
    kept = await fetch(shop.database, "SELECT request_id FROM quarantine ORDER BY 1")
    assert kept == [("req_2",), ("req_5",)]
    assert len(await _rows(shop)) == 7
    await sound(shop.database)


async def test_conflicts_are_tried_again(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _dead_folder(shop, tmp_path)
    tries: list[int] = []

    async def busy(*args: object) -> object:
        tries.append(1)
        if len(tries) < 3:
            raise StoreConflict("somebody has the account")
        return await settle(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "settle", busy)
    monkeypatch.setattr(module.stamina, "retry_context", _at_once)
    (done,) = await take_over(tmp_path / "journals", shop.database, CLOCK, PRICES)
    assert (done.booked, len(tries)) == (4, 3)
    await sound(shop.database)


def _at_once(**limits: object) -> object:
    quick = {"wait_initial": 0.001, "wait_max": 0.001, "wait_jitter": 0.0}
    return ORIGINAL(**{**limits, **quick})  # type: ignore[arg-type]


ORIGINAL = module.stamina.retry_context
