"""The operator's keys for providers, checked at start: what a key must look like where it is more
than an opaque text."""

from __future__ import annotations

from lava_proxy.core.settings import PROVIDER_KEY_PREFIX, ConfigurationError, Settings


def check_keys(settings: Settings) -> None:
    """Raises `ConfigurationError` for a key that no call could be made with."""
    for name in ("bedrock", "bedrock-mantle"):
        key = settings.provider_keys.get(name)
        if key is not None and ":" in key.get_secret_value():
            variable = PROVIDER_KEY_PREFIX + name.upper().replace("-", "_")
            raise ConfigurationError(
                f"{variable}: AWS access keys need signed requests, which are not made yet; "
                "use a Bedrock API key"
            )
