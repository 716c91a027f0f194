"""`/v1/rewrite/{dialect}/{url}`: where it goes, and the request in the provider's dialect.

The URL goes through the same gate as any other: it is written in the path form of `/v1/forward`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from lava_adapters.contract import Adapter
from lava_adapters.jsonedit import set_member
from lava_adapters.registry import Route
from lava_proxy.core.errors import LavaError
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.rewrite import Rewrite
from lava_proxy.proxy.run import Run
from lava_proxy.wire.target import Target, parse_target
from lava_proxy.wire.translate.dialects import DIALECTS, Dialect, Facts, Name
from lava_proxy.wire.translate.members import dump
from lava_proxy.wire.translate.translation import Translation
from lava_proxy.wire.translate.urls import model_in, place, split_end

_ROUTE = re.compile(rb"/v1/rewrite/([a-z]+)/(?:(https?):/{1,2})?(.+)", re.DOTALL)
_MADE_BY: dict[Name, tuple[str, str]] = {
    "openai": ("openai", "/v1/chat/completions"),
    "anthropic": ("anthropic", "/v1/messages"),
    "google": ("google", "/v1beta/models/m:generateContent"),
    "bedrock": ("bedrock", "/model/m/converse"),
}
"""Dialect -> the provider row that speaks it, and the path there."""
_KINDS: dict[tuple[str, str], Name] = {
    ("openai_chat", "chat"): "openai",
    ("anthropic_messages", "messages"): "anthropic",
    ("gemini", "gemini"): "google",
    ("bedrock", "converse"): "bedrock",
}


def begin(gateway: Gateway, run: Run, path: bytes, query: bytes) -> Target | None:
    """The target of a rewritten call; None for other calls. From here on errors are in the
    client's dialect."""
    if not path.startswith(b"/v1/rewrite/"):
        return None
    match = _ROUTE.fullmatch(path)
    word = match.group(1).decode() if match else ""
    dialect = next((each for name, each in DIALECTS.items() if name == word), None)
    if match is None or dialect is None:
        names = ", ".join(DIALECTS)
        raise LavaError("not_found", f"Write /v1/rewrite/<format>/<URL>; formats are {names}.")
    run.rewrite = Rewrite(dialect, speaker(gateway, dialect.name))
    scheme = match.group(2) or b"https"
    url = scheme + b"://" + match.group(3)
    return parse_target(b"/v1/forward/" + url, query, plain_hosts=gateway.registry_hosts)


def speaker(gateway: Gateway, name: Name) -> Adapter:
    """The adapter that says no, and ends a stream, in a dialect."""
    provider_id, endpoint = _MADE_BY[name]
    provider = gateway.registry.by_id(provider_id)
    found = provider.route("POST", endpoint) if provider else None
    if provider is None or found is None:
        raise LavaError("internal_error")
    return gateway.registry.adapter(provider, found[0])


def strip_suffix(gateway: Gateway, run: Run) -> None:
    """Take off what the client's SDK appended, where the URL leads nowhere with it."""
    target, rewrite = run.target, run.rewrite
    if target is None or rewrite is None:
        return
    place = gateway.registry.at(target.host, target.port)
    if place is None:
        return
    provider = place[1]
    ended = split_end(rewrite.client.name, target.path, target.query)
    if ended is None:
        return
    path, rewrite.named = ended
    leads = provider.route("POST", target.path) is not None
    if not leads and provider.route("POST", path) is not None:
        run.target = replace(target, path=path)


def translate(gateway: Gateway, run: Run, body: bytes, model: str | None = None) -> bytes:
    """The request for the provider; as it is where both speak the same. With `model` for another
    model than the one it names."""
    rewrite, provider, target = run.rewrite, run.provider, run.target
    if rewrite is None or provider is None or target is None:
        return body
    dialect, client = _dialect(run.route), rewrite.client
    if dialect is client:
        return body if model is None else _with_model(run, rewrite, target, body, model)
    if run.signed is not None:
        raise LavaError("invalid_request", "a request that its caller signed cannot be translated")
    request = client.read_request(body, rewrite.named)
    model = model or model_in(dialect.name, target.path)
    if model is not None:
        request = replace(request, model=model)
    path, query = place(dialect.name, target.path, target.query, model=model, stream=request.stream)
    _place(run, replace(target, path=path, query=query))
    rewrite.translation = Translation(
        client,
        dialect,
        request,
        answer_id=run.request_id,
        created=int(gateway.books.now().timestamp()),
        array=rewrite.named.array,
    )
    facts = Facts(
        gateway.settings.rewrite_output_tokens, provider.cap_member, provider.usage_opt_in
    )
    return dialect.write_request(request, facts)


def _with_model(run: Run, rewrite: Rewrite, target: Target, body: bytes, model: str) -> bytes:
    """The same request for another model of the same dialect."""
    name = rewrite.client.name
    if model_in(name, target.path) is None:
        return set_member(body, "model", dump(model))
    named = rewrite.named
    path, query = place(
        name, target.path, target.query, model=model, stream=named.stream, array=named.array
    )
    _place(run, replace(target, path=path, query=query))
    return body


def _place(run: Run, target: Target) -> None:
    """Another path of the same provider."""
    found = run.provider.route("POST", target.path) if run.provider else None
    if found is None:
        raise LavaError("forward_endpoint_not_supported", f"{target.path} is not an endpoint")
    run.target, run.route = target, found[0]


def _dialect(route: Route | None) -> Dialect:
    name = _KINDS.get((route.family, route.kind)) if route else None
    if route is None or name is None:
        raise LavaError(
            "forward_endpoint_not_supported",
            f"{route.path if route else 'this'} speaks no format that can be translated; "
            "use /v1/forward",
        )
    return DIALECTS[name]
