"""Money is an integer count of 10^-10 US dollars; this file is the only way in and out of text.

Inside the house an amount is an ``int`` whose name ends in ``_e10``. On the wire it is a decimal
string with exactly ten places. Rates may have twelve places and are ``int`` too (``_e12``), per
unit as quoted (per 1,000,000 tokens, per minute, per request).

Rounding happens once per ledger line, half away from zero (`divide_half_up`).
No float and no exponent is accepted: ``"1e3"`` and ``1.5`` are errors.
"""

from __future__ import annotations

import re

E10 = 10**10
"""One US dollar."""

E12 = 10**12

AMOUNT_MAX_E10 = 2**62
"""Largest amount that we take or store: about 461 million dollars, safely inside a BIGINT."""

_DECIMAL = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,12}))?", re.ASCII)


class MoneyError(ValueError):
    """The text is not a plain decimal, or it has more places than we keep."""


def parse_e10(text: str) -> int:
    """``"1.25"`` -> 12500000000. At most 10 decimal places, no exponent, no sign but ``-``."""
    amount = _parse(text, 10)
    if abs(amount) > AMOUNT_MAX_E10:
        raise MoneyError(f"amount out of range: {text!r}")
    return amount


def parse_rate_e12(text: str) -> int:
    """``"0.000002"`` -> 2000000. At most 12 decimal places."""
    return _parse(text, 12)


def format_e10(amount_e10: int) -> str:
    """12500000000 -> ``"1.2500000000"``: always ten places."""
    sign = "-" if amount_e10 < 0 else ""
    whole, part = divmod(abs(amount_e10), E10)
    return f"{sign}{whole}.{part:010d}"


def format_rate_e12(rate_e12: int) -> str:
    """2000000 -> ``"0.0000020000"``: ten places, or twelve where the rate has that many."""
    sign = "-" if rate_e12 < 0 else ""
    whole, part = divmod(abs(rate_e12), E12)
    digits = f"{part:012d}"
    return f"{sign}{whole}.{digits[:10] if digits.endswith('00') else digits}"


def divide_half_up(numerator: int, denominator: int) -> int:
    """The one rounding rule: nearest integer, halves away from zero. `denominator` > 0."""
    if numerator < 0:
        return -((denominator // 2 - numerator) // denominator)
    return (numerator + denominator // 2) // denominator


def divide_up(numerator: int, denominator: int) -> int:
    """Ceiling division, for holds: an upper bound may not round down. `denominator` > 0."""
    return -(-numerator // denominator)


def _parse(text: str, places: int) -> int:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise MoneyError(f"not a plain decimal: {text!r}")
    sign, whole, part = match.group(1), match.group(2), match.group(3) or ""
    if len(part.rstrip("0")) > places:
        raise MoneyError(f"more than {places} decimal places: {text!r}")
    value: int = int(whole) * 10**places + int(part[:places].ljust(places, "0"))
    return -value if sign else value
