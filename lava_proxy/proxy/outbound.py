"""The request as it goes to the provider: URL, headers, credential, and the smallest edit."""

from __future__ import annotations

from lava_proxy.core.errors import LavaError
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.intake import Scope
from lava_proxy.proxy.run import Run
from lava_proxy.wire.headers import upstream_headers
from lava_proxy.wire.target import upstream_url
from lava_proxy.wire.token import Credential

_PLACES = {
    "x-api-key": b"x-api-key",
    "x-goog-api-key": b"x-goog-api-key",
    "api-key": b"api-key",
    "xi-api-key": b"xi-api-key",
}


def content_type(scope: Scope) -> str:
    """The request's media type as sent, ``""`` when there is none."""
    for name, value in scope["headers"]:
        if name == b"content-type":
            text: str = value.decode("latin-1")
            return text
    return ""


def provider_key(gateway: Gateway, run: Run) -> str:
    """The credential for the provider: the caller's own, else the operator's."""
    if run.caller is None or run.provider is None:
        raise LavaError("internal_error")
    return run.caller.token.provider_key or gateway.managed_key(run.provider)


def headers(
    gateway: Gateway, run: Run, scope: Scope, credential: Credential, key: str
) -> list[tuple[bytes, bytes]]:
    """The caller's headers without what is ours or the hop's, with the provider's credential."""
    provider, caller, route = run.provider, run.caller, run.route
    if provider is None or caller is None or route is None:
        raise LavaError("internal_error")
    secrets = (credential.text.encode("latin-1", "replace"), caller.token.secret.encode())
    kept = upstream_headers(scope["headers"], secrets=secrets)
    if run.rewrite is not None:
        kept = run.rewrite.request_headers(kept)
    kept.append(_credential(provider.credential_for(route), key))
    if (run.managed or run.rewrite is not None) and provider.extra_headers:
        given = {name for name, _ in kept}
        kept += [
            (name.encode(), value.encode())
            for name, value in provider.extra_headers
            if name.encode() not in given
        ]
    run.upstream_secret = key.encode()
    if run.rewrite is not None and run.managed:
        run.rewrite.hide(run.upstream_secret)
    run.response_prefixes = gateway.response_prefixes[provider.id]
    return kept


def body(run: Run, original: bytes, cap: int | None) -> bytes:
    """The body, untouched but for usage that must be asked for and a cap that must hold."""
    adapter, ask = run.adapter, run.ask
    if adapter is None or ask is None:
        raise LavaError("internal_error")
    run.asked_usage = bool(
        run.provider is not None
        and run.provider.usage_opt_in
        and ask.capable_of_usage
        and not ask.wants_usage
    )
    if not run.asked_usage and cap is None:
        return original
    if cap is not None:
        run.flags.add("output_capped")
    return adapter.edit(ask, original, usage=run.asked_usage, output_cap=cap)


def url(gateway: Gateway, run: Run) -> str:
    """Built from the provider table's host, never from the caller's text."""
    if run.target is None:
        raise LavaError("internal_error")
    return upstream_url(gateway.origin(run.target.host), run.target)


def _credential(expected: str, key: str) -> tuple[bytes, bytes]:
    place = _PLACES.get(expected)
    if place is not None:
        return place, key.encode()
    scheme = b"Token " if expected == "token" else b"Bearer "
    return b"authorization", scheme + key.encode()
