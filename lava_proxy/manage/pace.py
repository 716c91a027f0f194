"""How many management calls a merchant may make: a token bucket for each, in this worker's memory.

It keeps one merchant's loop from taking the database's time of all others. Workers do not tell each
other, so the whole server allows up to as many times more as it has workers. A merchant who is
forgotten (the table is bounded, the longest quiet goes first) begins with a full bucket.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import LavaError
from lava_proxy.rules.bucket import E6, next_token_us, refill
from lava_proxy.rules.limits import Rate

MERCHANTS_MAX = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens_e6: int
    at_us: int


class Pace:
    """One per process."""

    def __init__(self, clock: Clock, per_minute: int, *, most: int = MERCHANTS_MAX) -> None:
        """`per_minute` also may come at once; 0: no limit."""
        self._clock = clock
        self._rate = Rate(per_minute, per_minute) if per_minute else None
        self._most = most
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, merchant_id: str) -> Mapping[str, str]:
        """Count a call; answers headers that say what is left. Raises 429 with Retry-After."""
        rate = self._rate
        if rate is None:
            return {}
        now_us = int(self._clock.boot_s() * E6)
        bucket = self._buckets.get(merchant_id)
        if bucket is None:
            bucket = self._buckets[merchant_id] = _Bucket(rate.capacity * E6, now_us)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(merchant_id)
        age_us = max(0, now_us - bucket.at_us)
        tokens_e6, _ = refill(bucket.tokens_e6, 0, age_us, (), rate)
        if tokens_e6 < E6:  # the bucket stays as it was: asking too often must not lose fractions
            wait_s = math.ceil(next_token_us(tokens_e6, rate) / E6)
            raise LavaError(
                "rate_limit_exceeded",
                f"over {rate.rpm} management calls a minute; see Retry-After",
                headers={**self._told(rate, tokens_e6), "retry-after": str(max(1, wait_s))},
            )
        bucket.tokens_e6, bucket.at_us = tokens_e6 - E6, now_us
        return self._told(rate, bucket.tokens_e6)

    def _told(self, rate: Rate, tokens_e6: int) -> dict[str, str]:
        """As the public API names them; `reset` is when all would be there again."""
        full_us = (rate.capacity * E6 - tokens_e6) * 60 // rate.rpm
        reset_s = math.ceil(self._clock.now().timestamp() + full_us / E6)
        return {
            "x-ratelimit-limit": str(rate.rpm),
            "x-ratelimit-remaining": str(tokens_e6 // E6),
            "x-ratelimit-reset": str(reset_s),
        }
