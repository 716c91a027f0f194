"""Bytes that make an SDK raise its own typed error: compact JSON with a fixed order of keys."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

CUT_CODE = "budget_exhausted"


def cut_message(message: str) -> str:
    """Some SDKs keep only the message, so it names the code itself."""
    prefix = CUT_CODE + ": "
    return message if message.startswith(prefix) else prefix + message


def with_facts(error: dict[str, object], facts: Mapping[str, object]) -> dict[str, object]:
    """`error` and behind it the extra members; a fact never replaces one of the fixed members."""
    return error | {name: fact for name, fact in facts.items() if name not in error}


def dump(value: object) -> bytes:
    """Compact JSON on one line; values orjson does not know are written as text."""
    return orjson.dumps(value, default=str)


def openai_error(
    code: str, kind: str, message: str, facts: Mapping[str, object]
) -> dict[str, object]:
    """OpenAI's error object."""
    return with_facts({"message": message, "type": kind, "param": None, "code": code}, facts)


def openai_refusal(status: int, code: str, message: str, facts: Mapping[str, object]) -> bytes:
    """An OpenAI error body."""
    kinds = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error"}
    kinds |= {404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return dump({"error": openai_error(code, kind, message, facts)})
