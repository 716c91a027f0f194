"""The request as it goes to the provider: URL, headers, credential, and the smallest edit."""

from __future__ import annotations

from lava_proxy.core.errors import LavaError
from lava_proxy.net.http1.request import parse_origin, split_url
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.managed import Key
from lava_proxy.proxy.run import Run
from lava_proxy.wire.sigv4 import AwsKeys, parse_keys, region_of, sign
from lava_proxy.wire.target import upstream_url
from lava_proxy.wire.token import Credential

_PLACES = {
    "x-api-key": b"x-api-key",
    "x-goog-api-key": b"x-goog-api-key",
    "api-key": b"api-key",
    "xi-api-key": b"xi-api-key",
}

_JWT = "eyJ"
"""How a token of Entra begins: Azure takes one instead of its key, as a bearer."""


async def provider_key(gateway: Gateway, run: Run) -> Key | None:
    """The credential for the provider: the caller's own, else the operator's; None where the caller
    has signed the request itself."""
    if run.caller is None or run.provider is None:
        raise LavaError("internal_error")
    if run.signed is not None:
        return None
    own = run.caller.token.provider_key
    if own is None:
        return await gateway.keys.of(run.provider)
    return (run.provider.aws_service and parse_keys(own)) or own


def headers(
    gateway: Gateway,
    run: Run,
    method: str,
    credential: Credential,
    key: Key | None,
    content: bytes,
) -> list[tuple[bytes, bytes]]:
    """The caller's headers without what is ours or the hop's, with the provider's credential."""
    provider, caller, route = run.provider, run.caller, run.route
    if provider is None or caller is None or route is None:
        raise LavaError("internal_error")
    kept = run.head.passing(credential.text, caller.token.secret)
    if run.rewrite is not None:
        kept = run.rewrite.request_headers(kept)
    if (run.managed or run.rewrite is not None) and provider.extra_headers:
        given = {name for name, _ in kept}
        kept += [
            (name.encode(), value.encode())
            for name, value in provider.extra_headers
            if name.encode() not in given
        ]
    if isinstance(key, AwsKeys):
        kept += _signature(gateway, run, method, kept, key, content)
        run.upstream_secrets = tuple(
            text.encode() for text in (key.access_key, key.secret_key, key.session_token) if text
        )
    elif key is not None:
        kept.append(_credential(provider.credential_for(route), key))
        run.upstream_secrets = (key.encode(),)
    if run.rewrite is not None and run.managed:
        run.rewrite.hide(run.upstream_secrets)
    run.response_prefixes = gateway.response_prefixes[provider.id]
    return kept


def body(gateway: Gateway, run: Run, original: bytes, cap: int | None) -> bytes:
    """The body, untouched but for usage that must be asked for and a cap that must hold."""
    adapter, ask = run.adapter, run.ask
    if adapter is None or ask is None:
        raise LavaError("internal_error")
    provider = run.provider
    run.asked_usage = bool(
        ask.capable_of_usage
        and not ask.wants_usage
        and provider is not None
        and provider.usage_opt_in
        and not gateway.unasked_servers.knows(server(run), gateway.books.clock.boot_s())
    )
    if run.asked_usage and provider is not None and not provider.aws_service:
        run.unasked = original, cap  # not of what we sign: that is sent once
    if not run.asked_usage and cap is None:
        return original
    if cap is not None:
        run.flags.add("output_capped")
    return adapter.edit(ask, original, usage=run.asked_usage, output_cap=cap)


def server(run: Run) -> tuple[str, str]:
    """Whose knowledge of the API is the same: a host, at a path (Azure's has the deployment in it)
    and a version if the query names one."""
    target = run.target
    return run.host, f"{target.path}?{target.query}" if target else ""


def url(gateway: Gateway, run: Run) -> str:
    """Built from the provider table's host, never from the caller's text."""
    if run.target is None:
        raise LavaError("internal_error")
    return upstream_url(gateway.origin(run.host), run.target)


def _signature(
    gateway: Gateway,
    run: Run,
    method: str,
    kept: list[tuple[bytes, bytes]],
    keys: AwsKeys,
    content: bytes,
) -> list[tuple[bytes, bytes]]:
    """Signed is what will be sent: with an override, its host and path."""
    if run.target is None or run.provider is None:
        raise LavaError("internal_error")
    origin, sent = split_url(url(gateway, run))
    path, _, query = sent.decode("ascii").partition("?")
    return sign(
        keys,
        method,
        path,
        query,
        kept,
        content,
        host=parse_origin(origin).authority.encode(),
        region=region_of(run.host) or "",
        service=run.provider.aws_service,
        at=gateway.books.now(),
    )


def _credential(expected: str, key: str) -> tuple[bytes, bytes]:
    place = _PLACES.get(expected)
    if place is not None and not (place == b"api-key" and key.startswith(_JWT)):
        return place, key.encode()
    scheme = b"Token " if expected == "token" else b"Bearer "
    return b"authorization", scheme + key.encode()
