"""The provider table as the settings have it, and what a wrong file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from lava_proxy.core.environment import load_settings
from lava_proxy.core.providers import OWN_PATHS, registry_of
from lava_proxy.core.settings import ConfigurationError, Settings

MINE = '[[provider]]\nid = "mine"\nhosts = ["llm.example.org"]\nbase = "https://llm.example.org"\n'


def settings_with(tmp_path: Path, text: str, **more: object) -> Settings:
    file = tmp_path / "providers.toml"
    file.write_text(text)
    return load_settings({}, providers_file=file, **more)


def test_rows_of_the_operators_own_stand_beside_the_built_in_ones(tmp_path: Path) -> None:
    registry = registry_of(settings_with(tmp_path, MINE + 'serves = ["chat"]\n'))
    assert registry.by_id("mine") is registry.by_host("llm.example.org")
    assert registry.by_id("openai") is not None
    assert registry_of(load_settings({})).by_id("mine") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINE + MINE, "LAVA_PROVIDERS_FILE: provider 'mine' exists already"),
        ("[[provider", "LAVA_PROVIDERS_FILE: not TOML"),
        ("\udcff", "LAVA_PROVIDERS_FILE: 'utf-8' codec"),
        *((MINE.replace('"mine"', f'"{own}"'), f"'{own}' is a path") for own in sorted(OWN_PATHS)),
    ],
)
def test_a_wrong_file_says_so(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "providers.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError, match=said):
        registry_of(load_settings({}, providers_file=file))


def test_an_adapter_that_is_not_installed_says_so() -> None:
    with pytest.raises(ConfigurationError, match="LAVA_ADAPTERS: 0 entry points"):
        registry_of(load_settings({}, adapters="nobody-has-this"))
