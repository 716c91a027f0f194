"""When an endpoint is left alone for a while, and when it is disabled: by how its tries ended.

Disabled is what has failed at every try for `disable_s`. A success begins afresh, and so does a
failure a day after the last one: two bad moments a month apart are not a month of failing. While
a delivery waits, its tries are at most half a day apart.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from lava_proxy.net.webhook_post import Posted
from lava_proxy.store.webhooks import Health

QUIET_FIRST_S = 5.0
QUIET_MOST_S = 900.0
APART = timedelta(days=1)
"""Failures with so much time between them are not one row of failures."""


def judged(
    before: Health, posted: Posted, next_at: datetime, now: datetime, disable_s: float
) -> Health:
    """How an endpoint stands after another try, of a delivery that is tried again at `next_at`;
    `disable_s` 0 never disables."""
    if posted.delivered:
        return Health(0, now, None, None, None)
    failures = before.failures + 1
    quiet_until = min(now + timedelta(seconds=_quiet_s(failures)), next_at)
    if posted.ours:
        return Health(
            failures, quiet_until, before.failing_since, before.failed_at, before.disabled_at
        )
    since = before.failing_since
    if since is None or before.failed_at is None or now - before.failed_at > APART:
        since = now
    over = disable_s > 0 and (now - since).total_seconds() >= disable_s
    return Health(failures, quiet_until, since, now, before.disabled_at or (now if over else None))


def jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


def _quiet_s(failures: int) -> float:
    return jittered(min(QUIET_FIRST_S * 2.0 ** min(failures - 1, 16), QUIET_MOST_S))
