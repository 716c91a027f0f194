"""The provider table as the settings have it: built-in rows, the operator's rows and families.

Whoever asks which providers there are asks here, so that a provider of the operator's own is
served, priced, counted and examined like any other.
"""

from __future__ import annotations

from lava_adapters.registry import Registry, RegistryError, load_family, read_rows
from lava_proxy.core.settings import ConfigurationError, Settings

OWN_PATHS = frozenset({"v1", "forward", "healthz", "readyz", "metrics", "embed"})
"""First segments of our own paths: no provider may have such a name."""


def registry_of(settings: Settings) -> Registry:
    """Raises `ConfigurationError` with the setting's name."""
    registry = Registry.builtin()
    try:
        families = {name: load_family(name) for name in settings.adapters}
        registry = registry.with_families(families) if families else registry
    except RegistryError as error:
        raise ConfigurationError(f"LAVA_ADAPTERS: {error}") from None
    if settings.providers_file is not None:
        try:
            rows = read_rows(settings.providers_file.read_text("utf-8"))
            registry = registry.with_providers(rows)
        except (OSError, UnicodeDecodeError, RegistryError) as error:
            raise ConfigurationError(f"LAVA_PROVIDERS_FILE: {error}") from None
    taken = sorted(OWN_PATHS.intersection(provider.id for provider in registry.providers))
    if taken:
        raise ConfigurationError(f"LAVA_PROVIDERS_FILE: {taken[0]!r} is a path of our own")
    return registry


def named_hosts(registry: Registry, settings: Settings) -> frozenset[str]:
    """Hosts that the operator names, in rows or overrides: they may be plain http, have a port, be
    private."""
    return registry.own_hosts.union(settings.upstream_overrides)
