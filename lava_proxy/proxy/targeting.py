"""Where a call goes: all URL forms of docs/architecture.md, parsed once each."""

from __future__ import annotations

from functools import lru_cache

from lava_adapters.registry import Registry
from lava_proxy.core.errors import LavaError
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.old_form import spelled_out
from lava_proxy.wire.target import Target, parse_prefix, parse_target, split_named


def target_of(gateway: Gateway, path: bytes, query: bytes) -> Target:
    """Where a call goes, by its raw path and query. Raises 400 and 404."""
    return _parse(gateway.registry, gateway.registry_hosts, path, query, gateway.prefixes)


@lru_cache(maxsize=4096)
def _parse(
    registry: Registry,
    hosts: frozenset[str],
    path: bytes,
    query: bytes,
    prefixes: tuple[tuple[str, str], ...],
) -> Target:
    """Errors are not cached."""
    path = spelled_out(registry, path)
    if path.startswith((b"/v1/forward", b"/forward")):
        named = split_named(path)
        if named is not None and dict(prefixes).get(named[0]):
            return parse_prefix(dict(prefixes)[named[0]], named[1], query)
        return parse_target(path, query, plain_hosts=hosts)
    name, _, rest = path.lstrip(b"/").partition(b"/")
    base = dict(prefixes).get(name.decode("latin-1"))
    if base is None:  # one of our paths, written with escapes
        raise LavaError("not_found", "There is no such route.")
    return parse_prefix(base, b"/" + rest, query)
