"""Settings made in code have what the environment says too, managed keys included."""

from __future__ import annotations

import pytest

from lava_proxy.core.environment import load_settings
from lava_proxy.core.provider_keys import name_of
from lava_proxy.core.providers import registry_of
from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.proxy.assemble import egress_of


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVA_PROVIDER_KEY_OPENAI", "a-key")
    monkeypatch.setenv("LAVA_PROVIDER_KEY_BEDROCK_MANTLE", "another")
    monkeypatch.setenv("LAVA_PROVIDER_KEY_XAI", "")
    monkeypatch.setenv("LAVA_PORT", "9001")


def keys_of(settings: Settings) -> dict[str, str]:
    return {name: key.get_secret_value() for name, key in settings.provider_keys.items()}


def test_settings_in_code_have_the_managed_keys() -> None:
    settings = Settings(port=9000)
    assert settings.port == 9000
    assert keys_of(settings) == {"openai": "a-key", "bedrock-mantle": "another"}
    assert keys_of(Settings()) == keys_of(settings)
    assert Settings().port == 9001


def test_keys_in_code_win_as_a_whole() -> None:
    assert keys_of(Settings(provider_keys={"mistral": "m"})) == {"mistral": "m"}
    assert keys_of(Settings(provider_keys={})) == {}
    assert keys_of(load_settings({})) == {}
    assert keys_of(load_settings({"LAVA_PROVIDER_KEY_XAI": "x"})) == {"xai": "x"}


def test_no_key_is_shown() -> None:
    assert "a-key" not in repr(Settings())


@pytest.mark.parametrize(
    ("name", "hint"),
    [("openia", "did you mean LAVA_PROVIDER_KEY_OPENAI?"), ("zzzzzz", "no provider 'zzzzzz'")],
)
def test_a_key_of_nobody_stops_the_start(name: str, hint: str) -> None:
    settings = Settings(provider_keys={"openai": "a-key", name: "a-key"})
    with pytest.raises(ConfigurationError) as refused:
        egress_of(settings, registry_of(settings))
    assert name_of(name) in str(refused.value)
    assert hint in str(refused.value)
