"""Checking what callers send: bodies by strict models, queries by name, one 422 for both.

Strict means that the JSON type counts: ``"5"``, ``5.0`` and ``true`` are no whole number. A field
that is not known is an error too, named in the answer, because a limit or a filter that is
silently ignored costs money.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, NoReturn, TypeVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from lava_proxy.core.errors import LavaError
from lava_proxy.core.money import parse_e10
from lava_proxy.manage.call import Call, Route
from lava_proxy.wire.problem import storable

DETAILS_MAX = 20
QUERY_MAX_BYTES = 64 * 1024
QUERY_FIELDS_MAX = 20
UNITS_MAX = 10**12
"""Most tokens or characters in one report, per direction."""
SECONDS_MAX = 10**9
NAME_MAX_CHARS = 255
URL_MAX_CHARS = 2048
NOT_A_FIELD = "is not a field of this route"

_MILLISECOND = Decimal("0.001")
_DATE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)", re.ASCII
)


class Body(BaseModel):
    """Base of every body."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


B = TypeVar("B", bound=Body)


def read_fields(model: type[B], call: Call) -> B:
    """The call's body as `model`, or 422 with every wrong field named."""
    members = call.members()
    try:
        return model.model_validate(members)
    except ValidationError as error:
        details = [
            {"path": _path(found["loc"]), "message": _message(found["type"], found)}
            for found in error.errors(include_url=False)[:DETAILS_MAX]
        ]
    first = details[0]
    raise LavaError(
        "validation_error", f"{first['path']}: {first['message']}", details=list(details)
    )


def read_query(call: Call, known: Set[str]) -> dict[str, str]:
    """The query's parameters by name. One that is unknown, given twice or not UTF-8 is 422."""
    if len(call.query_string) > QUERY_MAX_BYTES:
        refuse("query", f"is over {QUERY_MAX_BYTES} bytes")
    try:
        pairs = parse_qsl(
            call.query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError:
        refuse("query", "cannot be read as UTF-8 name=value pairs")
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            refuse(f"{name:.64}", "is not a parameter of this route")
        if name in values:
            refuse(name, "is given twice")
        if not storable(value):
            refuse(name, "holds a NUL")
        values[name] = value
    return values


def refuse_unread(call: Call, route: Route) -> None:
    """422 for a parameter or a field where a route takes none: its handler never looks."""
    if not route.query:
        read_query(call, route.query)
    if route.body is None and call.method != "GET":
        for name in call.members():
            refuse(f"{name:.64}", NOT_A_FIELD)


def customer_named(values: Mapping[str, str | None]) -> str | None:
    """The customer's name from `customer_id` or its older alias `connection_id`."""
    customer, alias = values.get("customer_id"), values.get("connection_id")
    if customer is not None and alias is not None and customer != alias:
        raise LavaError("invalid_request", "customer_id and connection_id differ; send one")
    return customer if customer is not None else alias


def refuse(path: str, message: str) -> NoReturn:
    """422 for one field."""
    raise LavaError(
        "validation_error", f"{path}: {message}", details=[{"path": path, "message": message}]
    )


def _path(loc: tuple[int | str, ...]) -> str:
    """("tiers", 1, "start") -> ``tiers[1].start``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part:.64}"
    return text.removeprefix(".")


def _message(kind: str, found: Mapping[str, object]) -> str:
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return NOT_A_FIELD
    context = found.get("ctx")
    if kind == "value_error" and isinstance(context, Mapping):
        return str(context["error"])
    return str(found["msg"])


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must hold printable characters only")
    return text


def _page_url(text: str) -> str:
    """An address that a browser can be sent to."""
    try:
        parts = urlsplit(text)
        named = parts.hostname and parts.port != 0
    except ValueError:
        named = None
    if not named or parts.scheme not in ("http", "https") or parts.username is not None:
        raise ValueError("must be an address such as https://shop.example/pricing")
    if not text.isascii() or any(c.isspace() or c in "\"';,\\<>" for c in text):
        raise ValueError("must be written as a browser sends it: ASCII, percent-encoded")
    return text


def _amount(value: object) -> int:
    """Money as text: a JSON number may have passed through somebody's float."""
    if not isinstance(value, str):
        raise ValueError('must be a decimal string such as "12.50"')
    return parse_e10(value)


def _cost(value: object) -> int:
    amount_e10 = _amount(value)
    if amount_e10 < 0:
        raise ValueError("must not be negative")
    return amount_e10


def _milliseconds(value: object) -> int:
    """Seconds to the nearest millisecond, half up: clients send what their clocks say."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("must be a number of seconds")
    if not 0 <= value <= SECONDS_MAX:
        raise ValueError(f"must be from 0 to {SECONDS_MAX}")
    return int(Decimal(value).quantize(_MILLISECOND, ROUND_HALF_UP).scaleb(3))


def _date(value: object) -> datetime:
    """ISO 8601 with an offset: a local time means another instant to every reader."""
    if not isinstance(value, str) or _DATE.fullmatch(value) is None:
        raise ValueError('must be a date and time with an offset, such as "2026-12-31T23:59:59Z"')
    return datetime.fromisoformat(value).astimezone(UTC)


_Decimal = Annotated[str, Field(pattern=r"^-?[0-9]{1,18}(\.[0-9]{1,10})?$")]
_Unsigned = Annotated[str, Field(pattern=r"^[0-9]{1,18}(\.[0-9]{1,10})?$")]
_Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""How these look in JSON, for the OpenAPI description."""

Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS), AfterValidator(_printable)]
"""An id, slug or name: what may also stand in a token or a path."""

PageUrl = Annotated[str, Field(max_length=URL_MAX_CHARS), AfterValidator(_page_url)]
"""Where a browser is sent, or what shows a page of ours."""

Amount = Annotated[int, PlainValidator(_amount, json_schema_input_type=_Decimal)]
"""USD as a decimal string -> 10^-10 USD."""

Cost = Annotated[int, PlainValidator(_cost, json_schema_input_type=_Unsigned)]
"""An amount that is not negative."""

Units = Annotated[int, Field(ge=0, le=UNITS_MAX)]

Milliseconds = Annotated[
    int,
    PlainValidator(
        _milliseconds,
        json_schema_input_type=Annotated[float, Field(ge=0, le=SECONDS_MAX)],
    ),
]
"""Seconds as a number -> milliseconds."""

Date = Annotated[datetime, PlainValidator(_date, json_schema_input_type=_Instant)]
