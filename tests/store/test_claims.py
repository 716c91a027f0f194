"""Rows of one stored object pay for it once, in parts, in whatever order they are booked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest
from books_kit import Shop, fetch, open_shop, row, sound

from lava_proxy.rules.charge import Counts
from lava_proxy.rules.price import Cost
from lava_proxy.rules.settlement import Metered, Settlement
from lava_proxy.store.database import Database


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await open_shop(database)


def saw(
    owner: str,
    shop: Shop,
    name: str,
    tokens: tuple[int, int],
    *,
    how: Metered = "part",
    reads: bool = True,
    of: str = "resp_1",
) -> Settlement:
    """A row of a call that saw so many tokens of a response."""
    plain = row(owner, shop=shop, request_id=f"req_{name}")
    return replace(
        plain,
        counts=Counts(*tokens),
        cost=Cost(tokens[0], tokens[1], sum(tokens)),
        reasoning_tokens=tokens[1],
        metered_object=of,
        metered=how,
        reads_object=reads,
    )


async def _booked(shop: Shop) -> dict[str, tuple[int, int, int]]:
    found = await fetch(
        shop.database, "SELECT request_id, input_tokens, output_tokens, cost_e10 FROM requests"
    )
    return {name: (given, made, cost) for name, given, made, cost in found}


async def _in_order(shop: Shop, rows: Sequence[Settlement], *, at_once: bool) -> None:
    if at_once:
        await shop.settle(*rows)
    else:
        for one in rows:
            await shop.settle(one)


@pytest.mark.parametrize("at_once", [True, False])
async def test_the_sum_is_that_of_the_whole_in_every_order(shop: Shop, at_once: bool) -> None:
    owner = await shop.customer(10**6)
    for number, order in enumerate(permutations(range(4))):
        of = f"resp_{number}"
        rows = [
            saw(owner, shop, f"{number}_made", (6, 40), reads=False, of=of),
            saw(owner, shop, f"{number}_looked", (0, 30), of=of),
            saw(owner, shop, f"{number}_read", (10, 90), how="whole", of=of),
            saw(owner, shop, f"{number}_again", (10, 90), how="whole", of=of),
        ]
        await _in_order(shop, [rows[place] for place in order], at_once=at_once)
    booked = await _booked(shop)
    for number in range(24):
        of_one = [v for name, v in booked.items() if name.startswith(f"req_{number}_")]
        assert [sum(side) for side in zip(*of_one, strict=True)][2] == 100
        assert sum(given + made for given, made, _ in of_one) == 100
    await sound(shop.database)


async def test_a_guess_that_was_too_high_is_set_against_the_other_side(shop: Shop) -> None:
    owner = await shop.customer(10**6)
    await shop.settle(saw(owner, shop, "made", (20, 40), reads=False))
    await shop.settle(saw(owner, shop, "read", (10, 90), how="whole"))
    assert (await _booked(shop))["req_read"] == (0, 40, 40)
    await shop.settle(saw(owner, shop, "much", (5, 500), reads=False, of="resp_2"))
    await shop.settle(saw(owner, shop, "less", (5, 50), how="whole", of="resp_2"))
    assert (await _booked(shop))["req_less"] == (0, 0, 0)
    flags = await fetch(shop.database, "SELECT flags FROM requests WHERE request_id = 'req_less'")
    assert flags == [(["metered_before", "unbilled"],)]


async def test_a_later_stretch_pays_for_itself(shop: Shop) -> None:
    owner = await shop.customer(10**6)
    await shop.settle(saw(owner, shop, "made", (6, 40), reads=False))
    await shop.settle(saw(owner, shop, "rest", (0, 30), how="stretch"))
    await shop.settle(saw(owner, shop, "whole", (6, 90), how="whole"))
    await shop.settle(saw(owner, shop, "rest again", (0, 30), how="stretch"))
    booked = await _booked(shop)
    assert [booked[f"req_{n}"][1] for n in ("made", "rest", "whole", "rest again")] == [
        40,
        30,
        20,
        0,
    ]


async def test_who_reads_at_once_pays_once(shop: Shop) -> None:
    """Four workers, each in transactions of its own."""
    owner = await shop.customer(10**6)
    rows = [
        saw(owner, shop, str(n), (6, 10 * n), how="whole" if n == 11 else "part", reads=n != 3)
        for n in range(12)
    ]

    async def worker(number: int) -> None:
        for one in rows[number::4]:
            await shop.settle(one)

    await asyncio.gather(*(worker(number) for number in range(4)))
    assert sum(given + made for given, made, _ in (await _booked(shop)).values()) == 116
    await sound(shop.database)


async def test_what_was_whole_before_parts_were_known_stays_paid(shop: Shop) -> None:
    """A row of `metered_objects` as older versions write it."""
    owner = await shop.customer(10**6)
    await fetch(
        shop.database,
        "INSERT INTO metered_objects (provider, object_id) SELECT 'openai', 'resp_1' "
        "RETURNING object_id",
    )
    read = saw(owner, shop, "read", (6, 90), how="whole")
    await shop.settle(replace(read, call=replace(read.call, provider="openai")))
    assert (await _booked(shop))["req_read"] == (0, 0, 0)
