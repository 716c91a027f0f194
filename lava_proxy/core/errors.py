"""Every error a caller can see: one table of codes, one exception, three kinds of fault.

`CODES` is the source for status, fault and the sentence in docs/errors.md (a test keeps the two
equal). Code raises ``LavaError("code", "what was wrong and what to do")``; turning it into bytes is
`wire/problem.py`'s work (our envelope) or the adapter's (the provider dialect's own shape).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Fault = Literal["caller", "upstream", "house"]

HTTP_ERROR = 400
"""Statuses from here on are errors."""


@dataclass(frozen=True, slots=True)
class Code:
    """What is fixed about an error code."""

    status: int
    fault: Fault
    meaning: str


CODES: Mapping[str, Code] = {
    "invalid_request": Code(
        400, "caller", "The request cannot be parsed: body, URL or token form."
    ),
    "forward_endpoint_not_supported": Code(
        400, "caller", "The target's host, method or path is not in the provider table."
    ),
    "forward_model_not_supported": Code(
        400, "caller", "No provider in the table serves this model on this endpoint."
    ),
    "invalid_signature": Code(
        400, "caller", "The message is not signed by the payment provider, or too old."
    ),
    "invalid_token": Code(
        401, "caller", "The credential is missing, malformed, unknown or revoked."
    ),
    "invalid_code": Code(401, "caller", "The login's code is wrong, used or over; log in again."),
    "insufficient_credit": Code(402, "caller", "The customer's credit does not cover this call."),
    "insufficient_balance": Code(402, "caller", "The merchant's wallet does not cover this call."),
    "payment_declined": Code(402, "caller", "The means of payment was declined; details say why."),
    "spend_limit_exceeded": Code(402, "caller", "The key's money limit is reached."),
    "budget_exhausted": Code(402, "caller", "A running stream was cut off: the money ended."),
    "model_unpriced": Code(402, "caller", "A percentage meter needs a price for the model."),
    "forbidden": Code(403, "caller", "The credential may not do this."),
    "key_paused": Code(403, "caller", "The spend key is paused."),
    "key_expired": Code(403, "caller", "The spend key's time is over."),
    "model_not_allowed": Code(403, "caller", "The spend key may not use this model."),
    "provider_not_allowed": Code(403, "caller", "The spend key may not use this provider."),
    "request_shape_mismatch": Code(
        403, "caller", "The spend key is for the other endpoint: OpenAI's or Anthropic's."
    ),
    "meter_not_on_plan": Code(403, "caller", "The meter is not on the customer's active plan."),
    "not_found": Code(404, "caller", "There is no such object, or it is not yours."),
    "method_not_allowed": Code(405, "caller", "The route exists, but not with this method."),
    "request_timeout": Code(408, "caller", "The request body did not arrive in time."),
    "conflict": Code(409, "caller", "The object's state does not allow this."),
    "idempotency_conflict": Code(409, "caller", "The same id came before with other content."),
    "body_too_large": Code(413, "caller", "The request body is over the limit."),
    "unsupported_media_type": Code(
        415, "caller", "The request body is encoded in a way we refuse."
    ),
    "expectation_failed": Code(417, "caller", "Only Expect: 100-continue is understood."),
    "validation_error": Code(422, "caller", "A field has a wrong value; details lists the paths."),
    "unbounded_call": Code(
        422, "caller", "A strict meter cannot bound this call: no output cap, or tools without one."
    ),
    "meter_needs_cost": Code(422, "caller", "A percentage meter needs the cost field in a report."),
    "upgrade_not_supported": Code(426, "caller", "WebSocket and other upgrades are not served."),
    "rate_limit_exceeded": Code(429, "caller", "Too many requests; see Retry-After."),
    "request_limit_exceeded": Code(429, "caller", "The key's request limit is reached."),
    "internal_error": Code(500, "house", "A defect of ours; the request was not billed twice."),
    "upstream_auth_failed": Code(502, "upstream", "The provider refused the managed key."),
    "upstream_unreachable": Code(502, "upstream", "No connection to the provider."),
    "upstream_protocol_error": Code(502, "upstream", "The provider's answer is not valid HTTP."),
    "unavailable": Code(503, "house", "We cannot serve this now; see Retry-After."),
    "upstream_timeout": Code(504, "upstream", "The provider did not answer in time."),
}


class LavaError(Exception):
    """Raised anywhere, mapped to bytes once.

    `details` are extra members of the error object (JSON values). `headers` are extra response
    headers, such as Retry-After.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        details: Mapping[str, object] | list[object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        facts = CODES[code]
        self.code = code
        self.status = facts.status
        self.fault: Fault = facts.fault
        self.message = message or facts.meaning
        self.details = details
        self.headers = dict(headers or {})
        super().__init__(f"{code}: {self.message}")


def unavailable(message: str, retry_after_s: int = 1) -> LavaError:
    """503 with Retry-After."""
    return LavaError("unavailable", message, headers={"retry-after": str(retry_after_s)})
