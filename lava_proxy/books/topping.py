"""Waiting for credit that is being bought: a stream is not cut while its top-up is under way."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from lava_proxy.store.credit import LeaseAnswer

if TYPE_CHECKING:
    from lava_proxy.books.account import Account
    from lava_proxy.books.leases import Leases

LOOK_AGAIN_S = 0.5
"""How often credit that is being bought is looked for where no announcement is heard."""


async def await_top_up(
    leases: Leases, account: Account, least_e10: int, amount_e10: int, overdraft_e10: int
) -> LeaseAnswer:
    """Credit is being bought: look again when it is announced (or now and then, should nobody
    hear), until there is enough, nothing comes any more, or the wait is over."""
    until_s = leases.clock.boot_s() + leases.top_up_wait_s
    answer = LeaseAnswer(0, 0, 0, coming=True)
    account.waiting += 1
    try:
        while answer.coming and (left_s := until_s - leases.clock.boot_s()) > 0:
            account.news = account.news or asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_AGAIN_S, left_s)):
                    await account.news.wait()
            answer = await leases.cover(account, least_e10, amount_e10, overdraft_e10)
    finally:
        account.waiting -= 1
    return answer
