"""The filter by metadata that requests and usage share."""

from __future__ import annotations

from lava_proxy.core.errors import LavaError
from lava_proxy.manage.fields import refuse
from lava_proxy.wire.problem import strict_json

FILTERS_MAX = 100


def metadata_filters(text: str | None) -> dict[str, str] | None:
    """``[["feature","chat"],...]`` -> what rows must have; None where no row can have it all."""
    if text is None:
        return {}
    try:
        pairs = strict_json(text.encode())
    except LavaError as error:
        refuse("metadata_filters", error.message)
    if not isinstance(pairs, list) or len(pairs) > FILTERS_MAX:
        refuse("metadata_filters", f"must be an array of at most {FILTERS_MAX} [key, value] pairs")
    wanted: dict[str, str] = {}
    possible = True
    for index, pair in enumerate(pairs):
        match pair:
            case [str(key), str(value)]:
                possible = possible and wanted.setdefault(key, value) == value
            case _:
                refuse(f"metadata_filters[{index}]", "must be a [key, value] pair of strings")
    return wanted if possible else None
