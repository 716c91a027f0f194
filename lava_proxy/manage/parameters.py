"""Query parameters of the REST API: one table, for the routes and for the OpenAPI description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LIMIT_MAX = 100


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a parameter means, and the JSON schema of its text."""

    meaning: str
    schema: Mapping[str, object]
    required: bool = False


_TEXT: Mapping[str, object] = {"type": "string", "minLength": 1, "maxLength": 255}
_TIME: Mapping[str, object] = {"type": "string", "format": "date-time"}

PARAMETERS: Mapping[str, Parameter] = {
    "cursor": Parameter("`next_cursor` of the page before.", {"type": "string"}),
    "limit": Parameter(
        "Objects on a page.",
        {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": 10},
    ),
    "customer_id": Parameter("Only this customer's, by id or reference.", _TEXT),
    "connection_id": Parameter("The older name of `customer_id`.", _TEXT),
    "meter_id": Parameter("Only this meter's, by id or slug.", _TEXT),
    "plan_id": Parameter("Only this plan's.", _TEXT),
    "request_id": Parameter("Only this request's.", _TEXT),
    "metadata_filters": Parameter(
        "A JSON array of [key, value] pairs, all of which must match.", {"type": "string"}
    ),
    "status": Parameter(
        "Which subscriptions.",
        {"type": "string", "enum": ["active", "cancelled", "all"], "default": "active"},
    ),
    "start": Parameter(
        "From this instant on; its offset is the time zone of the days.", _TIME, required=True
    ),
    "end": Parameter("Up to and with this instant; now when absent.", _TIME),
    "provider": Parameter(
        "Only this provider's.", {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"}
    ),
}
