"""What a path names."""

from __future__ import annotations

from itertools import pairwise


def ids_behind(path: str, *parents: str) -> tuple[str, ...]:
    """What stands behind any of `parents`: ``/v1/responses/resp_1/cancel`` names ``resp_1``."""
    return tuple(
        child for parent, child in pairwise(path.split("/")) if parent in parents and child
    )
