"""A token bucket whose tokens are partly in other hands, in whole numbers.

Tokens + permits that are out never exceed the capacity, so in any window W at most
capacity + rate x W requests start. A permit is out until its worker reports its use; the bucket
fills up behind it from the moment it was used, not from the moment it was taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from lava_proxy.rules.limits import Rate

E6 = 10**6
_MINUTE_S = 60


def refill(
    tokens_e6: int, out: int, age_us: int, used_us: Sequence[int], rate: Rate
) -> tuple[int, int]:
    """(tokens in millionths, permits still out) after `age_us`. `used_us`: how long ago each permit
    was used that is reported now."""
    at_us = 0
    for used in sorted(max(0, age_us - ago) for ago in used_us):
        tokens_e6 = _fill(tokens_e6, out, used - at_us, rate)
        at_us = used
        out -= 1
    return _fill(tokens_e6, out, age_us - at_us, rate), out


def _fill(tokens_e6: int, out: int, us: int, rate: Rate) -> int:
    room_e6 = max(0, (rate.capacity - out) * E6)
    return min(room_e6, tokens_e6 + rate.rpm * us // _MINUTE_S)


def next_token_us(tokens_e6: int, rate: Rate) -> int:
    """How long until there is a whole token."""
    missing_e6 = max(0, E6 - tokens_e6)
    return -(-missing_e6 * _MINUTE_S // rate.rpm)
