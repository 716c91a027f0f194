"""`/v1/chat/completions`, `/v1/messages`: the provider is found by the model's name.

From there on the call is like any other: its target is the URL in the provider's row. Where the
provider speaks the other dialect only, the call is translated as those of `/v1/rewrite` are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import orjson

from lava_adapters.contract import AskError
from lava_adapters.jsonedit import set_member
from lava_adapters.models import Kind, Served
from lava_adapters.strict import parse, text
from lava_proxy.core.errors import LavaError
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.rewrite import Rewrite
from lava_proxy.proxy.rewriting import speaker
from lava_proxy.proxy.run import Run
from lava_proxy.rules.key_use import model_refusal, refusal
from lava_proxy.rules.limits import Shape, SpendKey
from lava_proxy.wire.target import Target, parse_prefix
from lava_proxy.wire.translate.dialects import DIALECTS

_NOWHERE = "https://by-model.invalid"
_MODEL = frozenset(("model",))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of our routes: whose dialect it speaks, and what that asks for."""

    path: str
    shape: Shape
    kind: Kind
    behind: str = ""
    """What stands behind the provider's own path for this kind. Such a call is not translated."""

    @property
    def other(self) -> Kind | None:
        """As what it may be asked of a provider that does not speak this dialect."""
        if self.behind:
            return None
        return "chat" if self.kind == "messages" else "messages"


ENDPOINTS: Mapping[bytes, Endpoint] = {
    endpoint.path.encode(): endpoint
    for endpoint in (
        Endpoint("/v1/chat/completions", "openai", "chat"),
        Endpoint("/v1/messages", "anthropic", "messages"),
        Endpoint("/v1/messages/count_tokens", "anthropic", "messages", "/count_tokens"),
    )
}

PATHS = frozenset(endpoint.path for endpoint in ENDPOINTS.values())


def begin(gateway: Gateway, run: Run, method: str, path: bytes, query: bytes) -> Target | None:
    """The call as one to be placed by its model; None for other calls. From here on errors are in
    the endpoint's own dialect."""
    endpoint = ENDPOINTS.get(path)
    if endpoint is None:
        return None
    run.shape = endpoint.shape
    run.adapter = speaker(gateway, endpoint.shape)
    if method != "POST":
        raise LavaError("method_not_allowed", "this route takes POST", headers={"allow": "POST"})
    return parse_prefix(_NOWHERE, path, query)


def check_key(gateway: Gateway, run: Run) -> None:
    """A spend key that may not be used now, or not here, is refused before the body is read."""
    key = run.caller.spend_key if run.caller else None
    if key is None:
        return
    code = refusal(key, run.shape, gateway.books.now())
    if code is not None:
        raise LavaError(code, _why(code, key))


def place(gateway: Gateway, run: Run, path: bytes, body: bytes) -> bytes:
    """Find the provider of the model; answers the body with the name that the provider knows."""
    endpoint, target, caller = ENDPOINTS[path], run.target, run.caller
    if target is None or caller is None:
        raise LavaError("internal_error")
    model = _model(body)
    served = gateway.models.served(model, endpoint.kind)
    if served is None and endpoint.other is not None and run.adapter is not None:
        served = gateway.models.served(model, endpoint.other)
        run.rewrite = Rewrite(DIALECTS[endpoint.shape], run.adapter)
        target = replace(target, query="")  # what it says is for the dialect's own provider
    if served is None:
        raise LavaError("forward_model_not_supported", _unknown(model, endpoint))
    key = caller.spend_key
    code = model_refusal(key, served.model, served.provider.id) if key else None
    if code is not None:
        raise LavaError(code, f"this spend key may not use {served.provider.id}/{served.model}")
    run.target = _at(served, endpoint, target)
    if served.model == model:
        return body
    return set_member(body, "model", orjson.dumps(served.model))


def _at(served: Served, endpoint: Endpoint, asked: Target) -> Target:
    """The provider's URL, with the caller's own query."""
    path = served.route.path + endpoint.behind
    there = parse_prefix(served.provider.base, path.encode(), b"")
    return replace(asked, host=there.host, port=there.port, path=there.path)


def _model(body: bytes) -> str:
    try:
        model = text(parse(body, _MODEL), "model")
    except AskError as error:
        raise LavaError("invalid_request", str(error)) from None
    if not model:
        raise LavaError("invalid_request", "model: is required, a string")
    return model


def _unknown(model: str, endpoint: Endpoint) -> str:
    return (
        f"no provider is known for the model {model:.100} at {endpoint.path}; "
        "name one as provider/model, or use /v1/forward"
    )


def _why(code: str, key: SpendKey) -> str | None:
    if code != "request_shape_mismatch":
        return None
    path = next(e.path for e in ENDPOINTS.values() if e.shape == key.request_shape)
    return f"this spend key is for {path} (its request_shape is {key.request_shape})"
