"""`/v1/rewrite/{dialect}/{url}`: where it goes, and the request in the provider's dialect.

The URL goes through the same gate as any other: it is written in the path form of `/v1/forward`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from lava_adapters.jsonedit import set_member
from lava_adapters.registry import Route
from lava_proxy.core.errors import LavaError
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.rewrite import Rewrite
from lava_proxy.proxy.run import Run
from lava_proxy.wire.target import Target, parse_target
from lava_proxy.wire.translate.members import dump
from lava_proxy.wire.translate.translation import (
    Dialect,
    Translation,
    read_request,
    write_request,
)

_ROUTE = re.compile(rb"/v1/rewrite/([a-z]+)/(?:(https?):/{1,2})?(.+)", re.DOTALL)
_MADE_BY: dict[bytes, tuple[Dialect, str, str]] = {
    b"openai": ("openai", "openai", "/v1/chat/completions"),
    b"anthropic": ("anthropic", "anthropic", "/v1/messages"),
}
"""Name in the path -> dialect, the provider row that speaks it, and the path there."""
_SUFFIXES: dict[Dialect, tuple[str, ...]] = {
    "openai": ("/v1/chat/completions", "/chat/completions"),
    "anthropic": ("/v1/messages",),
}
"""What the dialect's SDK appends to its base URL."""
_KINDS: dict[tuple[str, str], Dialect] = {
    ("openai_chat", "chat"): "openai",
    ("anthropic_messages", "messages"): "anthropic",
}


def begin(gateway: Gateway, run: Run, path: bytes, query: bytes) -> Target | None:
    """The target of a rewritten call; None for other calls. From here on errors are in the
    client's dialect."""
    if not path.startswith(b"/v1/rewrite/"):
        return None
    match = _ROUTE.fullmatch(path)
    made = _MADE_BY.get(match.group(1)) if match else None
    if match is None or made is None:
        names = " or ".join(name.decode() for name in _MADE_BY)
        raise LavaError("not_found", f"Write /v1/rewrite/<format>/<URL>; the format is {names}.")
    dialect, provider_id, endpoint = made
    provider = gateway.registry.by_id(provider_id)
    found = provider.route("POST", endpoint) if provider else None
    if provider is None or found is None:
        raise LavaError("internal_error")
    run.rewrite = Rewrite(dialect, gateway.registry.adapter(provider, found[0]))
    scheme = match.group(2) or b"https"
    url = scheme + b"://" + match.group(3)
    return parse_target(b"/v1/forward/" + url, query, plain_hosts=gateway.registry_hosts)


def strip_suffix(gateway: Gateway, run: Run) -> None:
    """Take off what the client's SDK appended, where the URL leads nowhere with it."""
    target, rewrite = run.target, run.rewrite
    provider = gateway.registry.by_host(target.host) if target else None
    if target is None or rewrite is None or provider is None:
        return
    if provider.route("POST", target.path) is not None:
        return
    for suffix in _SUFFIXES[rewrite.client]:
        path = target.path.removesuffix(suffix)
        if path != target.path and provider.route("POST", path) is not None:
            run.target = replace(target, path=path)
            return


def translate(gateway: Gateway, run: Run, body: bytes, model: str | None = None) -> bytes:
    """The request for the provider; as it is where both speak the same. With `model` for another
    model than the one it names."""
    rewrite, provider, route = run.rewrite, run.provider, run.route
    if rewrite is None or provider is None or route is None:
        return body
    dialect = _dialect(route)
    if dialect == rewrite.client:
        return body if model is None else set_member(body, "model", dump(model))
    request = read_request(rewrite.client, body)
    if model is not None:
        request = replace(request, model=model)
    rewrite.translation = Translation(
        rewrite.client,
        dialect,
        request,
        answer_id=run.request_id,
        created=int(gateway.books.now().timestamp()),
    )
    return write_request(
        dialect,
        request,
        default_cap=gateway.settings.rewrite_output_tokens,
        cap_member=provider.cap_member,
        usage_opt_in=provider.usage_opt_in,
    )


def _dialect(route: Route) -> Dialect:
    dialect = _KINDS.get((route.family, route.kind))
    if dialect is None:
        raise LavaError(
            "forward_endpoint_not_supported",
            f"{route.path} speaks no format that can be translated; use /v1/forward",
        )
    return dialect
