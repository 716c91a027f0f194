"""One management call as values: what came and from whom, what goes back, and its route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from lava_proxy.core.errors import LavaError
from lava_proxy.store.directory import Principal
from lava_proxy.wire.problem import strict_json

if TYPE_CHECKING:
    from lava_proxy.manage.desk import Desk


@dataclass(frozen=True, slots=True)
class Call:
    """A call whose sender is known. `params` are the path's variable segments, decoded."""

    method: str
    path: str
    params: Sequence[str]
    query_string: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    principal: Principal

    @property
    def merchant_id(self) -> str:
        return self.principal.merchant.merchant_id

    def members(self) -> dict[str, object]:
        """The body as a JSON object, whatever its content type says; nothing at all is ``{}``."""
        value = strict_json(self.body) if self.body.strip() else {}
        if not isinstance(value, dict):
            raise LavaError("invalid_request", "The body must be a JSON object.")
        return value


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a JSON body, always."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(view: Mapping[str, object], status: int = 200) -> Answer:
    """A view of an object as an answer."""
    return Answer(status, orjson.dumps(view))


Handler = Callable[["Desk", Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is relative to ``/v1/``; ``*`` stands for exactly one segment."""

    method: str
    path: str
    handler: Handler
