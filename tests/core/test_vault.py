"""Secrets at rest: opened by the right key for the right row, and by nothing else."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.core.vault import KEY_FILE, Vault, open_vault, parse_key

ONE, OTHER = os.urandom(32), os.urandom(32)


def test_what_is_sealed_opens_for_its_own_row_only() -> None:
    vault = Vault([ONE])
    sealed = vault.seal("whsec_x", "wh_1")
    assert b"whsec" not in sealed
    assert vault.seal("whsec_x", "wh_1") != sealed
    assert vault.unseal(sealed, "wh_1") == "whsec_x"
    for wrong, row in ((sealed, "wh_2"), (sealed[:-1] + bytes([sealed[-1] ^ 1]), "wh_1")):
        with pytest.raises(ConfigurationError, match="changed"):
            vault.unseal(wrong, row)


def test_keys_can_be_changed() -> None:
    old = Vault([ONE]).seal("s", "r")
    both = Vault([OTHER, ONE])
    assert both.unseal(old, "r") == "s"
    assert Vault([OTHER]).unseal(both.seal("s", "r"), "r") == "s"
    for sealed in (old, b"", b"\x02" + old[1:]):
        with pytest.raises(ConfigurationError, match="master key"):
            Vault([OTHER]).unseal(sealed, "r")


def test_keys_come_in_hex_and_base64() -> None:
    for text in (ONE.hex(), base64.b64encode(ONE).decode(), base64.urlsafe_b64encode(ONE).decode()):
        assert parse_key(text) == ONE
    for text in ("", "abcd", ONE.hex()[:-2], "not a key at all"):
        with pytest.raises(ConfigurationError, match="32 bytes"):
            parse_key(text)


def test_a_key_file_is_made_with_the_embedded_database_only(tmp_path: Path) -> None:
    sealed = open_vault(Settings(data_dir=tmp_path)).seal("s", "r")
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert open_vault(Settings(data_dir=tmp_path)).unseal(sealed, "r") == "s"
    away = Settings(data_dir=tmp_path, database_url=SecretStr("postgresql://h/d"))
    with pytest.raises(ConfigurationError, match="LAVA_MASTER_KEY"):
        open_vault(away)
    keys = f"{OTHER.hex()}, {ONE.hex()}"
    named = Settings(data_dir=tmp_path, master_key=SecretStr(keys))
    assert open_vault(named).unseal(Vault([ONE]).seal("s", "r"), "r") == "s"
