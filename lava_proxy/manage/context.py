"""What a REST handler gets: who calls, the path's parameters, query, body and the books."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, ValidationError

from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.core.errors import LavaError
from lava_proxy.store.database import Connection
from lava_proxy.store.directory import Principal
from lava_proxy.wire.problem import strict_json

JSON = Mapping[str, object]
M = TypeVar("M", bound="Body")


class Body(BaseModel):
    """A request body: exact types, no unknown members."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


@dataclass(slots=True)
class Context:
    """One management call. `conn` is inside a transaction, committed if the handler returns."""

    books: Books
    registry: Registry
    principal: Principal
    params: Mapping[str, str]
    query: Mapping[str, str]
    raw_body: bytes
    conn: Connection | None = None

    @property
    def merchant_id(self) -> str:
        return self.principal.merchant.merchant_id

    @property
    def transaction(self) -> Connection:
        if self.conn is None:
            raise LookupError("this route has no transaction")
        return self.conn

    def now(self) -> datetime:
        return self.books.now()

    def json(self) -> dict[str, object]:
        """The body as a JSON object; an empty body is an empty object."""
        value = strict_json(self.raw_body) if self.raw_body.strip() else {}
        if not isinstance(value, dict):
            raise LavaError("invalid_request", "The body must be a JSON object.")
        return value

    def body(self, model: type[M]) -> M:
        """The body, validated; 422 names every wrong member."""
        return validate(model, self.json())


Handler = Callable[[Context], Awaitable[JSON]]


@dataclass(frozen=True, slots=True)
class Route:
    """A path under ``/v1``; ``{name}`` is one segment. `transaction`: the handler runs in one, and
    honours Idempotency-Key."""

    method: str
    path: str
    handler: Handler
    transaction: bool = False
    query: frozenset[str] = frozenset()
    """Query parameters that it knows; any other is 422."""


def validate(model: type[M], value: object) -> M:
    """`value` as `model`, or 422 `validation_error` with the list of paths."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details: list[object] = [
            {"path": ".".join(str(part) for part in e["loc"]), "message": e["msg"]}
            for e in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise LavaError("validation_error", "The body is not valid.", details=details) from None


def invalid(path: str, message: str) -> LavaError:
    """422 for one member or query parameter."""
    return LavaError(
        "validation_error", f"{path}: {message}", details=[{"path": path, "message": message}]
    )


def parse_query(raw: bytes, known: frozenset[str]) -> dict[str, str]:
    """The query as a mapping; unknown and repeated parameters are 422, bad bytes 400."""
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=32
        )
    except (UnicodeDecodeError, ValueError):
        raise LavaError("invalid_request", "The query string cannot be read.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise invalid(name[:64], "is not a parameter of this endpoint")
        if name in found:
            raise invalid(name, "is given twice")
        if "\0" in value:
            raise invalid(name, "holds a NUL")
        found[name] = value
    return found
