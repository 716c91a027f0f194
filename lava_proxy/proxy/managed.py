"""The operator's keys for providers, read once at start: an opaque text, or one that signs.

What cannot be used stops the start, with the variable's name and never with its value.
"""

from __future__ import annotations

from collections.abc import Mapping

from lava_adapters.registry import Provider, Registry
from lava_proxy.core.errors import LavaError
from lava_proxy.core.settings import PROVIDER_KEY_PREFIX, ConfigurationError, Settings
from lava_proxy.wire.sigv4 import AwsKeys, parse_keys, region_of

Key = str | AwsKeys


class ManagedKeys:
    """One per process."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        """Raises `ConfigurationError` for a key that no call could be made with."""
        self._keys: Mapping[str, Key] = {
            provider.id: _key(provider, settings.provider_keys[provider.id].get_secret_value())
            for provider in registry.providers
            if provider.id in settings.provider_keys
        }

    def of(self, provider: Provider) -> Key:
        """The operator's key for a provider. Raises when there is none."""
        key = self._keys.get(provider.id)
        if key is None:
            raise LavaError(
                "forward_endpoint_not_supported",
                f"there is no managed key for {provider.id}: set {_variable(provider)}, "
                "or send your own in the token's provider_key",
            )
        return key


def _key(provider: Provider, text: str) -> Key:
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ConfigurationError(f"{_variable(provider)}: must be printable ASCII without spaces")
    if not provider.aws_service or ":" not in text:
        return text
    keys = parse_keys(text)
    if keys is None:
        raise ConfigurationError(
            f"{_variable(provider)}: must be a Bedrock API key, ACCESS:SECRET or "
            "ACCESS:SECRET:SESSION"
        )
    for host in provider.hosts:
        if region_of(host) is None:
            raise ConfigurationError(
                f"{_variable(provider)}: the host {host} names no region to sign for"
            )
    return keys


def _variable(provider: Provider) -> str:
    return PROVIDER_KEY_PREFIX + provider.id.upper().replace("-", "_")
