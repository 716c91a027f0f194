"""Renewals: late, twice, declined, waiting; a cycle is begun once and money is never lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from plans_kit import Club, open_club

from lava_proxy.payments.seam import ChargeAnswer
from lava_proxy.store.database import Database


@pytest.fixture
async def club(database: Database, tmp_path: Path) -> AsyncIterator[Club]:
    async with open_club(database, tmp_path) as made:
        yield made


async def test_a_charge_that_waits_for_its_payer_is_not_made_twice(club: Club) -> None:
    await club.member(await club.plan())
    club.till.answers.append(ChargeAnswer("requires_action", "pi_1", "authentication_required"))
    club.later(days=31)
    await club.renew()
    club.later(hours=2)
    await club.renew()
    first, second = club.till.asked
    assert first.payment_id == second.payment_id
    assert (first.provider_ref, second.provider_ref) == (None, "pi_1")
