"""The old form of a target, ``/v1/forward/openai/chat/completions``.

It names a provider and leaves out what that provider's paths begin with;
``/v1/forward/openai/v1/chat/completions`` means the same.
"""

from __future__ import annotations

from lava_adapters.registry import Registry
from lava_proxy.wire.target import split_named


def spelled_out(registry: Registry, path: bytes) -> bytes:
    """`path` with the API base put in where only that makes it a path of the provider's."""
    named = split_named(path)
    provider = registry.by_id(named[0]) if named is not None else None
    if named is None or provider is None:
        return path
    whole = provider.whole_path(named[1].decode("latin-1"))
    if whole is None:
        return path
    return b"/v1/forward/" + named[0].encode() + whole.encode("latin-1")
