"""One management call as values: what came and from whom, what goes back, and its route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import orjson
from pydantic import BaseModel
from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.store.directory import Principal
from lava_proxy.wire.problem import strict_json

if TYPE_CHECKING:
    from lava_proxy.manage.desk import Desk


@dataclass(frozen=True, slots=True)
class Call:
    """A call and who sent it. `params` are the path's variable segments, decoded."""

    method: str
    path: str
    params: Sequence[str]
    query_string: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    principal: Principal | None
    """None on routes that ask for no credential."""

    @property
    def known(self) -> Principal:
        """The caller, on a route that asks for a secret key."""
        if self.principal is None:
            raise InvariantBroken("a route that asks for no credential has no caller")
        return self.principal

    @property
    def merchant_id(self) -> str:
        return self.known.merchant.merchant_id

    @property
    def test(self) -> bool:
        """Called with a key of the test mode: what it makes is marked in its id."""
        return self.known.test

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
    kept: bytes | None = None
    """What a repeat under the same Idempotency-Key answers, where that is not all: a secret is
    shown once, and never written down."""


def answer(view: Mapping[str, object], status: int = 200, *, once: str | None = None) -> Answer:
    """A view of an object as an answer; `once` names the member that is shown this time only."""
    kept = None
    if once is not None:
        kept = orjson.dumps({name: value for name, value in view.items() if name != once})
    return Answer(status, orjson.dumps(view), kept=kept)


class Success(TypedDict):
    """Done, where there is no object to show."""

    success: Literal[True]


class Deleted(TypedDict):
    """An object that is there no more."""

    id: str
    deleted: Literal[True]


Handler = Callable[["Desk", Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is relative to ``/v1/``; ``*`` stands for exactly one segment. What stands behind the
    handler is what the OpenAPI description is made of, and the tests' matrix of routes."""

    method: str
    path: str
    handler: Handler
    answer: object = None
    """The TypedDict that a success answers."""
    body: type[BaseModel] | None = None
    query: frozenset[str] = frozenset()
    """Names in `manage/parameters.py`."""
    errors: tuple[str, ...] = ()
    """Codes of this route beside those that any route may answer."""
    status: int = 200
    auth: Literal["secret_key", "none"] = "secret_key"
    paced: bool = True
    """Counts for the merchant's rate of management calls (with `auth`)."""
