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


def _operation(name: str, summary: str, *parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": name,
        "tags": ["gateway"],
        "security": [{"secret_key": []}],
        "parameters": list(parameters),
        "responses": _ANSWER,
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
    summary = f"{dialect} by the model's name; for tools, with a spend key ({shape})."
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"post": _operation(f"post_{name}_gateway", summary) | {"requestBody": body}}


_BODY: Mapping[str, Any] = {"requestBody": {"content": {"application/json": {}}}}
_URL = {
    "name": "u",
    "in": "query",
    "required": True,
    "description": "The provider's URL, percent-encoded or as it is.",
    "schema": {"type": "string", "format": "uri"},
}
_FORMAT = {
    "name": "format",
    "in": "path",
    "required": True,
    "description": "The format that the client speaks; the provider's is that of its endpoint.",
    "schema": {"enum": ["openai", "anthropic", "google", "bedrock"]},
}
_PATH_URL = _URL | {
    "name": "url",
    "in": "path",
    "description": "The provider's URL as it is; its scheme may be left out.",
}
_FALLBACKS = {
    "name": "x-lava-fallbacks",
    "in": "header",
    "description": 'Where the call goes if that fails: a JSON array of at most 5 {"url", "model"}.',
    "schema": {"type": "string"},
}
_FORWARD = "Call a provider; the answer is metered as it passes."
_REWRITE = "Call a provider in another provider's format; requests and answers are translated."

GATEWAY_PATHS: Mapping[str, Any] = {
    "/chat/completions": _by_model("chat_completions", "OpenAI's chat completions", "openai"),
    "/messages": _by_model("messages", "Anthropic's messages", "anthropic"),
    "/messages/count_tokens": _by_model("tokens", "Anthropic's count of tokens", "anthropic"),
    "/forward": {
        "get": _operation("get_u_gateway", _FORWARD, _URL),
        "post": _operation("post_u_gateway", _FORWARD, _URL) | dict(_BODY),
    },
    "/rewrite/{format}/{url}": {
        "post": _operation("post_rewrite_gateway", _REWRITE, _FORMAT, _PATH_URL, _FALLBACKS)
        | dict(_BODY)
    },
}
