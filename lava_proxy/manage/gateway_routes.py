"""The gateway's routes in the OpenAPI description, by hand: their bodies are the providers'.

All URL forms of docs/architecture.md stand here. A `url` or `path` in a path is the rest of it, its
slashes as they are, which OpenAPI has no word for. Which methods an endpoint takes, the provider's
row says; here are those of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lava_adapters.provider import METHODS
from lava_proxy.core.errors import CODES
from lava_proxy.wire.token import CREDENTIAL_HEADERS

_HEADERS = {
    "x-lava-request-id": {
        "description": "The id of the call: `GET /v1/requests/{request_id}`.",
        "schema": {"type": "string"},
    },
    "x-lava-served-by": {
        "description": "`provider/model`, where a fallback answered.",
        "schema": {"type": "string"},
    },
}
_ANSWER = {
    "200": {
        "description": "The provider's answer, as it came.",
        "headers": _HEADERS,
        "content": {"*/*": {}},
    },
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
SCHEMES: Mapping[str, Any] = {
    "gateway_key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A secret key, a forward token, or (where the model names the provider) a "
        "spend key; in any one of these places.",
    },
    **{
        name.decode().replace("-", "_"): {"type": "apiKey", "in": "header", "name": name.decode()}
        for name in sorted(CREDENTIAL_HEADERS - {b"authorization"})
    },
    "key": {"type": "apiKey", "in": "query", "name": "key"},
}
"""Where the credential of a gateway call may stand."""

_METADATA = (
    {
        "name": "metadata",
        "in": "query",
        "description": "Pairs to find the call by: a JSON object of strings.",
        "schema": {"type": "string"},
    },
    {
        "name": "x-lava-metadata",
        "in": "header",
        "description": "The same; or single pairs, as `x-lava-metadata-<name>`.",
        "schema": {"type": "string"},
    },
)


def _operation(name: str, summary: str, *parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": name,
        "tags": ["gateway"],
        "security": [{scheme: []} for scheme in SCHEMES],
        "parameters": [*parameters, *_METADATA],
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


def _any_method(
    name: str, summary: str, servers: tuple[str, ...], *parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """A form that takes whatever method its endpoint has, at each of these beginnings."""
    made = {}
    for method in METHODS:
        operation = _operation(f"{method.lower()}_{name}_gateway", summary, *parameters)
        operation["servers"] = [{"url": server} for server in servers]
        made[method.lower()] = operation | (_BODY if method == "POST" else {})
    return made


def _in_path(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": dict(schema),
    }


_BODY: dict[str, Any] = {"requestBody": {"content": {"application/json": {}, "*/*": {}}}}
_TEXT = {"type": "string"}
_URI = {"type": "string", "format": "uri"}
_URL = {
    "name": "u",
    "in": "query",
    "required": True,
    "allowReserved": True,
    "description": "The provider's URL, percent-encoded once or as it is; what else the query has "
    "joins that URL's own.",
    "schema": _URI,
}
_PROVIDER = _in_path("provider", "A provider's `id` in `GET /v1/services`.", _TEXT)
_PATH = _in_path("path", "The path at the provider, as it is, with its own query.", _TEXT)
_SHORT_PATH = _PATH | {
    "description": "The path at the provider; it may leave out what all of that provider's paths "
    "begin with (`openai/chat/completions`)."
}
_FORMAT = _in_path(
    "format",
    "The format that the client speaks; the provider's is that of its endpoint.",
    {"enum": ["openai", "anthropic", "google", "bedrock"]},
)
_WHOLE_URL = _in_path(
    "url", "The provider's URL as it is; or a provider's name, with the URL in `u`.", _TEXT
)
_PATH_URL = _in_path("url", "The provider's URL as it is; its scheme may be left out.", _TEXT)
_FALLBACKS = {
    "name": "x-lava-fallbacks",
    "in": "header",
    "description": 'Where the call goes if that fails: a JSON array of at most 5 {"url", "model"}.',
    "schema": _TEXT,
}
_FORWARD = "Call a provider; the answer is metered as it passes. {} Also without `/v1`."
_REWRITE = "Call a provider in another provider's format; requests and answers are translated."
_BOTH = ("/v1", "/")

GATEWAY_PATHS: Mapping[str, Any] = {
    "/chat/completions": _by_model("chat_completions", "OpenAI's chat completions", "openai"),
    "/messages": _by_model("messages", "Anthropic's messages", "anthropic"),
    "/messages/count_tokens": _by_model("tokens", "Anthropic's count of tokens", "anthropic"),
    "/forward": _any_method("u", _FORWARD.format("The URL is in the query."), _BOTH, _URL),
    "/forward/{url}": _any_method(
        "url",
        _FORWARD.format("The URL is in the path."),
        _BOTH,
        _WHOLE_URL,
        _URL | {"required": False},
    ),
    "/forward/{provider}/{path}": _any_method(
        "named", _FORWARD.format("The provider by its name."), _BOTH, _PROVIDER, _SHORT_PATH
    ),
    "/{provider}/{path}": _any_method(
        "prefix",
        "The same, for clients that can only change a base URL: it is the gateway's and a "
        "provider's name.",
        ("/",),
        _PROVIDER,
        _PATH,
    ),
    "/rewrite/{format}/{url}": {
        "post": _operation("post_rewrite_gateway", _REWRITE, _FORMAT, _PATH_URL, _FALLBACKS) | _BODY
    },
}
