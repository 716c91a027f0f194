"""The gateway's routes in the OpenAPI description, by hand: their bodies are the providers'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lava_proxy.core.errors import CODES

_ANSWER = {
    "200": {"description": "The provider's answer, as it came.", "content": {"*/*": {}}},
    "4XX": {
        "description": "The provider's own error, or a refusal of ours in the same shape: "
        + ", ".join(f"`{code}`" for code, facts in CODES.items() if 400 <= facts.status < 500)
        + ".",
        "content": {"*/*": {}},
    },
    "5XX": {
        "description": ", ".join(f"`{c}`" for c, facts in CODES.items() if facts.status >= 500),
        "content": {"*/*": {}},
    },
}


def _any_method(summary: str, *parameters: Mapping[str, Any]) -> dict[str, Any]:
    common = {
        "summary": summary,
        "tags": ["gateway"],
        "security": [{"secret_key": []}],
        "parameters": list(parameters),
        "responses": _ANSWER,
    }
    return {
        "get": common | {"operationId": f"get_{parameters[0]['name']}_gateway"},
        "post": common
        | {
            "operationId": f"post_{parameters[0]['name']}_gateway",
            "requestBody": {"content": {"application/json": {}}},
        },
    }


def _by_model(name: str, dialect: str, shape: str) -> dict[str, Any]:
    """A route that is placed by the body's `model`."""
    required = ["model", "messages"]
    schema = {
        "type": "object",
        "description": f"A body of {dialect}; `provider/model` names the provider as well.",
        "required": required,
        "properties": {"model": {"type": "string"}, "messages": {"type": "array"}},
    }
    return {
        "post": {
            "summary": f"{dialect} by the model's name; for tools, with a spend key ({shape}).",
            "tags": ["gateway"],
            "operationId": f"post_{name}_gateway",
            "security": [{"secret_key": []}],
            "parameters": [],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": _ANSWER,
        }
    }


GATEWAY_PATHS: Mapping[str, Any] = {
    "/chat/completions": _by_model("chat_completions", "OpenAI's chat completions", "openai"),
    "/messages": _by_model("messages", "Anthropic's messages", "anthropic"),
    "/messages/count_tokens": _by_model("tokens", "Anthropic's count of tokens", "anthropic"),
    "/forward": _any_method(
        "Call a provider; the answer is metered as it passes.",
        {
            "name": "u",
            "in": "query",
            "required": True,
            "description": "The provider's URL, percent-encoded or as it is.",
            "schema": {"type": "string", "format": "uri"},
        },
    ),
}
