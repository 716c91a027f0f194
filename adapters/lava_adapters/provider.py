"""One row of the provider table, and how a request's path finds its route."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import unquote

from .contract import Ask
from .quirks import Quirks

Credential = Literal["bearer", "x-api-key", "x-goog-api-key", "api-key", "xi-api-key", "token"]
"""Where a provider expects its key: a header of that name, or Authorization: Bearer / Token."""


NO_QUIRKS = Quirks()
METHODS = ("POST", "GET", "DELETE")


class RegistryError(ValueError):
    """The provider table contradicts itself or a row is malformed: a configuration error."""


@dataclass(frozen=True, slots=True)
class Route:
    """One path pattern of a provider; ``{name}`` stands for exactly one segment."""

    methods: tuple[str, ...]
    path: str
    family: str
    kind: str
    """"chat", "completions", "responses", "embeddings", "messages", "gemini", "free", ..."""
    managed: bool = True
    """May be called with the operator's key. False: only with the caller's own."""
    object_param: str | None = None
    """The path parameter that is the id of a provider-side object, which must be the caller's."""
    model_param: str | None = None
    """The path parameter that names the model; what the body says does not count then."""
    credential: Credential | None = None
    """Where the key goes on this route, if elsewhere than on the provider's others."""
    suffix_param: str | None = None
    """The path parameter that says who serves the model, where prices differ by that: it goes
    behind the model's name and a colon, as the provider itself writes it elsewhere."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: re.Pattern[str]
    route: Route


@dataclass(frozen=True, slots=True)
class Provider:
    """What is known about one provider. Thousandths carry an ``_e3`` name."""

    id: str
    label: str
    hosts: tuple[str, ...]
    base: str
    """Origin of the ``/{provider}/...`` prefix route."""
    routes: tuple[Route, ...]
    api_bases: tuple[str, ...] = ()
    """What its paths begin with: the old form ``/v1/forward/{provider}/...`` leaves it out."""
    credential: Credential = "bearer"
    compatible_credential: Credential | None = None
    """Where its OpenAI-compatible paths expect the key, if elsewhere."""
    aws_service: str = ""
    """Its name in AWS signatures: a managed key may be an access key, and callers may sign."""
    service_account: bool = False
    """A managed key may be the path of a Google service account's key file."""
    extra_headers: tuple[tuple[str, str], ...] = ()
    """Sent with managed keys where the caller gave none."""
    prices: str | None = None
    """The provider's id in genai-prices; ``{suffix}`` at its end is what stands behind the last
    colon of the model's name."""
    models: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The operator's own names (of deployments) -> the model that is priced and shown."""
    quirks: Quirks = NO_QUIRKS
    one_token_events: bool = False
    """A delta event carries exactly one token, as a rule."""
    bytes_per_token_e3: int = 4_400
    token_factor_e3: int = 1_020
    """What an o200k count is multiplied with to estimate this provider's own."""
    hidden_tokens_per_s: int = 0
    """Assumed speed of reasoning that is not streamed."""
    hidden_models: tuple[str, ...] = ()
    """Beginnings of the names of models that reason without streaming it."""
    response_headers: tuple[str, ...] = ()
    """Prefixes of response headers to let through beside the usual ones."""
    encoded_slash: bool = False
    """``%2F`` is allowed in its paths."""
    cancel_stops_charge: bool | None = None
    """Whether a stream that is hung up on is charged no further; None: nobody says."""
    disconnect: Literal["cancel", "drain"] = "cancel"
    """What to do upstream when the client is gone: reading on costs nothing more where the charge
    goes on anyway, and then the provider's own count is had."""
    docs: str = ""
    checked: str = ""
    """The date when somebody last compared the row with the provider's documentation."""
    _literal: Mapping[tuple[str, str], Route] = field(init=False, repr=False, compare=False)
    _patterns: Mapping[str, tuple[_Pattern, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        literal: dict[tuple[str, str], Route] = {}
        patterns: dict[str, list[_Pattern]] = {}
        for route in self.routes:
            for method in route.methods:
                if "{" in route.path:
                    patterns.setdefault(method, []).append(_Pattern(_compile(route.path), route))
                elif (method, route.path) in literal:
                    raise RegistryError(f"{self.id}: {method} {route.path} is listed twice")
                else:
                    literal[method, route.path] = route
        object.__setattr__(self, "_literal", literal)
        object.__setattr__(self, "_patterns", {k: tuple(v) for k, v in patterns.items()})

    @property
    def usage_opt_in(self) -> bool:
        return self.quirks.usage_opt_in

    @property
    def cap_member(self) -> str:
        return self.quirks.cap_member

    def hides(self, model: str | None) -> bool:
        """Whether a model's silence may be reasoning that is billed and not streamed."""
        return model is not None and model.startswith(self.hidden_models)

    def named(self, ask: Ask, route: Route, params: Mapping[str, str]) -> Ask:
        """`ask` with the model that answers: from the path where that decides, and by the name
        that has a price."""
        if route.model_param is not None:
            ask = replace(ask, model=unquote(params[route.model_param]))
        if route.suffix_param is not None and ask.model:
            ask = replace(ask, model=f"{ask.model}:{unquote(params[route.suffix_param])}")
        known = self.models.get(ask.model or "") if self.models else None
        return ask if known is None else replace(ask, model=known)

    def credential_for(self, route: Route) -> Credential:
        """Where the key goes on this route."""
        if route.credential is not None:
            return route.credential
        compatible = route.family.startswith("openai_")
        return (compatible and self.compatible_credential) or self.credential

    def whole_path(self, path: str) -> str | None:
        """A path of the table that is `path`, or ends with it and begins as its paths do."""
        for base in ("", *self.api_bases):
            if any(self.route(method, base + path) for method in METHODS):
                return base + path
        return None

    def route(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of a raw path (no query), and the values of its parameters."""
        route = self._literal.get((method, path))
        if route is not None:
            return route, {}
        for pattern in self._patterns.get(method, ()):
            match = pattern.regex.fullmatch(path)
            if match is not None:
                return pattern.route, match.groupdict()
        return None


def _compile(path: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", path)
    pattern = "".join(
        f"(?P<{piece}>[^/]+)" if index % 2 else re.escape(piece)
        for index, piece in enumerate(pieces)
    )
    return re.compile(pattern)
