"""Permits of rates in this worker's memory: one more member of what a call holds.

The bucket is in the database (rules/bucket.py says what it promises). We draw a few permits at a
time, so most calls take one from memory. What was used is reported with the next draw; what nobody
uses goes back when it is idle or recalled, or lapses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import unavailable
from lava_proxy.rules.limits import Rate
from lava_proxy.store.rates import Draw

PERMIT_S = 10.0
"""How long permits may be used after they were drawn."""

Trip = Callable[[str, Rate, int, list[int], int, float], Awaitable[Draw]]
"""(owner, rate, kept, ages of uses, wanted, lease time): one draw from the bucket."""
Recall = Callable[[str], Awaitable[object]]


class Bucket:
    """One rate's permits here."""

    __slots__ = ("expires_s", "lock", "owner_id", "permits", "rate", "refused_until_s", "used")

    def __init__(self, owner_id: str, rate: Rate) -> None:
        self.owner_id = owner_id
        self.rate = rate
        self.permits = 0
        self.expires_s = 0.0
        self.used: list[float] = []
        """When permits were used that the database has not heard of."""
        self.refused_until_s = 0.0
        self.lock = asyncio.Lock()


class Permit:
    """Leave to start one call."""

    __slots__ = ("_bucket", "_used_s")

    def __init__(self, bucket: Bucket, used_s: float) -> None:
        self._bucket = bucket
        self._used_s = used_s

    def give_back(self) -> None:
        """The call does not start after all. A use that was reported already stays one."""
        if self._used_s in self._bucket.used:
            self._bucket.used.remove(self._used_s)
            self._bucket.permits += 1


class Rates:
    """All rates of this worker."""

    def __init__(
        self, trip: Trip, clock: Clock, *, wait_s: float, recall: Recall | None = None
    ) -> None:
        self._trip = trip
        self._clock = clock
        self._wait_s = wait_s
        self._recall = recall
        self.buckets: dict[str, Bucket] = {}

    async def take(self, owner_id: str, rate: Rate) -> Permit | float:
        """A permit, or how many seconds until there may be one."""
        bucket = self.buckets.get(owner_id)
        if bucket is None:
            bucket = self.buckets[owner_id] = Bucket(owner_id, rate)
        bucket.rate = rate
        permit = self._take(bucket)
        if permit is not None:
            return permit
        try:
            async with asyncio.timeout(self._wait_s), bucket.lock:
                return await self._draw(bucket)
        except TimeoutError:
            raise unavailable("the rate is not looked up in time; try again") from None

    def _take(self, bucket: Bucket) -> Permit | None:
        """A permit from memory. No await."""
        now_s = self._clock.boot_s()
        if not bucket.permits or now_s >= bucket.expires_s:
            return None
        bucket.permits -= 1
        bucket.used.append(now_s)
        return Permit(bucket, now_s)

    async def _draw(self, bucket: Bucket) -> Permit | float:
        recalled = False
        while True:
            permit = self._take(bucket)  # whoever drew before us may have left some
            if permit is not None:
                return permit
            left_s = bucket.refused_until_s - self._clock.boot_s()
            if left_s > 0:
                return left_s
            answer = await self._fetch(bucket, bucket.rate.batch)
            permit = self._take(bucket)
            if permit is not None:
                return permit
            if not recalled and answer.elsewhere and self._recall is not None:
                recalled = True
                await self._recall(bucket.owner_id)
                continue
            bucket.refused_until_s = self._clock.boot_s() + answer.wait_s
            return answer.wait_s

    async def _fetch(self, bucket: Bucket, want: int) -> Draw:
        """One trip. Permits leave our hands first, so an answer that is lost loses them."""
        asked_s = self._clock.boot_s()
        kept = bucket.permits if asked_s < bucket.expires_s else 0
        used, bucket.used = bucket.used, []
        bucket.permits, bucket.expires_s = 0, 0.0
        ages_us = [max(0, int((asked_s - at_s) * 1_000_000)) for at_s in used]
        try:
            answer = await self._trip(bucket.owner_id, bucket.rate, kept, ages_us, want, PERMIT_S)
        except BaseException:  # said twice is safe, not said is not
            bucket.used = used + bucket.used
            raise
        bucket.permits = kept + answer.permits
        bucket.expires_s = asked_s + PERMIT_S
        return answer

    async def answer(self, owner_id: str) -> bool:
        """Somebody else needs permits: give back what we do not use; whether there was any."""
        bucket = self.buckets.get(owner_id)
        if bucket is None or bucket.lock.locked() or not (bucket.permits or bucket.used):
            return False
        async with bucket.lock:
            await self._return(bucket)
        return True

    async def _return(self, bucket: Bucket) -> None:
        asked_s = self._clock.boot_s()
        used, bucket.used, bucket.permits = bucket.used, [], 0
        ages_us = [max(0, int((asked_s - at_s) * 1_000_000)) for at_s in used]
        try:
            await self._trip(bucket.owner_id, bucket.rate, 0, ages_us, 0, PERMIT_S)
        except BaseException:
            bucket.used = used + bucket.used
            raise

    async def tend(self, *, all_of_them: bool = False) -> None:
        """Give back permits whose time is half over, and forget rates that nobody uses."""
        now_s = self._clock.boot_s()
        for bucket in list(self.buckets.values()):
            idle = bucket.expires_s - now_s < PERMIT_S / 2
            if bucket.lock.locked() or not (idle or all_of_them):
                continue
            async with bucket.lock:
                if bucket.permits or bucket.used:
                    await self._return(bucket)
            if not bucket.permits and not bucket.used and not bucket.lock.locked():
                self.buckets.pop(bucket.owner_id, None)
