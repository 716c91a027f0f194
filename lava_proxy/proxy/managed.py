"""The operator's keys for providers, read once at start: an opaque text, one that signs, or a
service account that fetches short-lived tokens.

What cannot be used stops the start, with the variable's name and never with its value.
"""

from __future__ import annotations

from pathlib import Path

from lava_adapters.registry import Provider, Registry
from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import LavaError
from lava_proxy.core.provider_keys import name_of
from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.net.google_account import AccountError, ServiceAccount, read_account
from lava_proxy.net.google_tokens import AccessTokens
from lava_proxy.net.upstream import Upstreams
from lava_proxy.wire.sigv4 import AwsKeys, parse_keys, region_of

Key = str | AwsKeys
"""What a request is made with."""


class ManagedKeys:
    """One per process."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        """Raises `ConfigurationError` for a key that no call could be made with."""
        found = {
            provider.id: _key(provider, settings.provider_keys[provider.id].get_secret_value())
            for provider in registry.providers
            if provider.id in settings.provider_keys
        }
        self._accounts = {n: key for n, key in found.items() if isinstance(key, ServiceAccount)}
        self._keys = {n: key for n, key in found.items() if not isinstance(key, ServiceAccount)}
        self._tokens: dict[str, AccessTokens] = {}

    def open(self, upstreams: Upstreams, token_origin: str, clock: Clock) -> None:
        """Begin to fetch tokens, where accounts need them."""
        for name, account in self._accounts.items():
            self._tokens[name] = AccessTokens(account, upstreams, token_origin, clock)

    async def of(self, provider: Provider) -> Key:
        """The operator's key for a provider. Raises when there is none, and 503 while a token
        cannot be had."""
        key = self._keys.get(provider.id)
        if key is not None:
            return key
        self.require(provider)
        return await self._tokens[provider.id].get()

    def require(self, provider: Provider) -> None:
        """Raises when there is no key for a provider, and no account either."""
        if provider.id not in self._keys and provider.id not in self._tokens:
            raise LavaError(
                "forward_endpoint_not_supported",
                f"there is no managed key for {provider.id}: set {name_of(provider.id)}, "
                "or send your own in the token's provider_key",
            )

    def tend(self) -> None:
        """Renew tokens ahead of time; called about every second."""
        for tokens in self._tokens.values():
            tokens.tend()

    def refused(self, provider: Provider) -> None:
        """The provider did not take the key."""
        tokens = self._tokens.get(provider.id)
        if tokens is not None:
            tokens.refused()

    async def close(self) -> None:
        for tokens in self._tokens.values():
            await tokens.close()


def _key(provider: Provider, text: str) -> Key | ServiceAccount:
    if provider.service_account and ("/" in text or text.endswith(".json")):
        return _account(provider, Path(text))
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ConfigurationError(f"{name_of(provider.id)}: must be printable ASCII without spaces")
    if not provider.aws_service or ":" not in text:
        return text
    keys = parse_keys(text)
    if keys is None:
        raise ConfigurationError(
            f"{name_of(provider.id)}: must be a Bedrock API key, ACCESS:SECRET or "
            "ACCESS:SECRET:SESSION"
        )
    for host in provider.hosts:
        if region_of(host) is None:
            raise ConfigurationError(
                f"{name_of(provider.id)}: the host {host} names no region to sign for"
            )
    return keys


def _account(provider: Provider, path: Path) -> ServiceAccount:
    try:
        return read_account(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{name_of(provider.id)}: {path}: {error.strerror}") from None
    except AccountError as error:
        raise ConfigurationError(f"{name_of(provider.id)}: {path}: {error}") from None
