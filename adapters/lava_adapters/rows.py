"""Reading one row of the provider table: strict, because a typing error here opens a door.

Most hosts copy OpenAI's paths; ``serves`` names which of them, below ``prefix``. Whatever else a
provider has is listed under ``routes``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from .provider import Credential, Provider, RegistryError, Route
from .quirks import Quirks

_COMPATIBLE: Mapping[str, tuple[Route, ...]] = {
    "chat": (Route(("POST",), "/chat/completions", "openai_chat", "chat"),),
    "completions": (Route(("POST",), "/completions", "openai_chat", "completions"),),
    "embeddings": (Route(("POST",), "/embeddings", "openai_embeddings", "embeddings"),),
    "responses": (Route(("POST",), "/responses", "openai_responses", "responses"),),
    "rerank": (Route(("POST",), "/rerank", "openai_embeddings", "rerank"),),
    "models": (
        Route(("GET",), "/models", "openai_chat", "free"),
        Route(("GET",), "/models/{model}", "openai_chat", "free"),
    ),
}
_ID = re.compile(r"[a-z][a-z0-9-]{0,39}")
_HOST = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]*(?::\d{1,5})?")
_BASE = re.compile(r"https?://[a-z0-9.-]+(?::\d{1,5})?")
QUIRKS: Mapping[str, type] = {
    "usage_opt_in": bool,
    "cap_member": str,
    "named_errors": bool,
    "model_in_query": bool,
}
_PLAIN: Mapping[str, type] = {
    "one_token_events": bool,
    "bytes_per_token_e3": int,
    "token_factor_e3": int,
    "hidden_tokens_per_s": int,
    "encoded_slash": bool,
    "docs": str,
    "checked": str,
    "prices": str,
    "cancel_stops_charge": bool,
    "disconnect": str,
    "credential": str,
    "compatible_credential": str,
    "aws_service": str,
    "service_account": bool,
}
CHANGEABLE = frozenset(
    ("usage_opt_in", "cap_member", "named_errors", "disconnect", "one_token_events",
     "hidden_tokens_per_s")
)  # fmt: skip
"""What an operator may say of a provider that has a row: their server may be of another version."""
_REQUIRED = frozenset(("id", "hosts", "base"))
_LISTS = ("response_headers", "hidden_models", "serves", "routes")
_OTHER = frozenset(("label", "extra_headers", "prefix", "api_base", "models", *_LISTS))


def read_provider(row: Mapping[str, Any]) -> Provider:
    """A `Provider` from a TOML table or a JSON object of the settings. Raises `RegistryError`."""
    name = row.get("id")
    unknown = sorted(set(row) - _REQUIRED - _OTHER - set(QUIRKS) - set(_PLAIN))
    missing = sorted(_REQUIRED - set(row))
    if unknown or missing:
        raise RegistryError(f"provider {name!r}: unknown {unknown}, missing {missing}")
    for key, kind in (*_PLAIN.items(), *QUIRKS.items()):
        if key in row and type(row[key]) is not kind:
            raise RegistryError(f"provider {name!r}: {key} must be of type {kind.__name__}")
    _check(row)
    quirks = {key: row[key] for key in QUIRKS if key in row}
    return Provider(
        id=row["id"],
        label=str(row.get("label", row["id"])),
        hosts=tuple(host.lower() for host in row["hosts"]),
        base=row["base"],
        routes=_routes(row),
        api_bases=tuple(b for b in (row.get("api_base"), row.get("prefix", "/v1")) if b),
        extra_headers=tuple(sorted(row.get("extra_headers", {}).items())),
        response_headers=tuple(row.get("response_headers", ())),
        hidden_models=tuple(row.get("hidden_models", ())),
        models=dict(row.get("models", {})),
        quirks=Quirks(**quirks),
        **_disconnect(row) | {key: row[key] for key in _PLAIN if key in row},
    )


def _disconnect(row: Mapping[str, Any]) -> dict[str, Any]:
    """What follows for leaving clients, unless the row says it itself."""
    return {"disconnect": "drain"} if row.get("cancel_stops_charge") is False else {}


def _check(row: Mapping[str, Any]) -> None:
    name = row["id"]
    if type(name) is not str or not _ID.fullmatch(name):
        raise RegistryError(f"provider id {name!r} must match {_ID.pattern}")
    hosts = row["hosts"]
    if type(hosts) is not list or not hosts:
        raise RegistryError(f"provider {name!r}: hosts must be a list of host names")
    for host in hosts:
        if type(host) is not str or not _HOST.fullmatch(host.lower()):
            raise RegistryError(f"provider {name!r}: {host!r} is not a host name")
    if type(row["base"]) is not str or not _BASE.fullmatch(row["base"]):
        raise RegistryError(f"provider {name!r}: base must be an origin such as https://host")
    for key in ("credential", "compatible_credential"):
        if row.get(key, "bearer") not in get_args(Credential):
            raise RegistryError(f"provider {name!r}: {key} must be in {get_args(Credential)}")
    models = row.get("models", {})
    if type(models) is not dict or any(type(model) is not str for model in models.values()):
        raise RegistryError(f"provider {name!r}: models must be a table of names to models")
    if row.get("disconnect", "cancel") not in ("cancel", "drain"):
        raise RegistryError(f"provider {name!r}: disconnect must be cancel or drain")


def _routes(row: Mapping[str, Any]) -> tuple[Route, ...]:
    routes: list[Route] = []
    prefix = row.get("prefix", "/v1")
    for kind in row.get("serves", ()):
        if kind not in _COMPATIBLE:
            raise RegistryError(f"provider {row['id']!r}: serves must be in {list(_COMPATIBLE)}")
        routes += [replace(shape, path=prefix + shape.path) for shape in _COMPATIBLE[kind]]
    for entry in row.get("routes", ()):
        try:
            route = Route(**{**entry, "methods": tuple(entry["methods"])})
            if route.credential not in (None, *get_args(Credential)):
                raise TypeError(f"credential must be in {get_args(Credential)}")
            routes.append(route)
        except (TypeError, KeyError) as error:
            raise RegistryError(f"provider {row['id']!r}: bad route {entry}: {error}") from None
    return tuple(routes)
