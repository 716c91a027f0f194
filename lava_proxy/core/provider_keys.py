"""Managed keys out of the environment: ``LAVA_PROVIDER_KEY_<PROVIDER>``, one name per provider.

They are a source of `Settings` like the environment itself, so that settings made in code have
them too. Keyword arguments win as a whole: keys given there are not mixed with others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

PREFIX = "LAVA_PROVIDER_KEY_"
FIELD = "provider_keys"


def keys_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Provider id to managed key; an empty value is none."""
    return {
        name[len(PREFIX) :].lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and value
    }


def name_of(provider_id: str) -> str:
    """The variable that holds a provider's managed key."""
    return PREFIX + provider_id.upper().replace("-", "_")


class KeySource(PydanticBaseSettingsSource):
    """The keys of the environment that pydantic has read."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str | None]) -> None:
        super().__init__(settings_cls)
        self._keys = keys_in({name.upper(): value or "" for name, value in environ.items()})

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not asked: there is one field."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """What the sources before this one left open."""
        return {} if FIELD in self.current_state else {FIELD: self._keys}


class KeySettings(BaseSettings):
    """A part of `Settings`: where they come from."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keyword arguments, then the environment."""
        environ = env_settings.env_vars if isinstance(env_settings, EnvSettingsSource) else {}
        return init_settings, env_settings, KeySource(settings_cls, environ)
