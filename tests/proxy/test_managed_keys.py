"""The operator's own keys: which are refused at start."""

from __future__ import annotations

import pytest

from lava_proxy.core.environment import load_settings
from lava_proxy.core.settings import ConfigurationError
from lava_proxy.proxy.managed import check_keys


def test_an_aws_access_key_is_refused_at_start() -> None:
    settings = load_settings({"LAVA_PROVIDER_KEY_BEDROCK": "AKIAIOSFODNN7EXAMPLE:secret"})
    with pytest.raises(ConfigurationError, match="LAVA_PROVIDER_KEY_BEDROCK"):
        check_keys(settings)
    check_keys(load_settings({"LAVA_PROVIDER_KEY_BEDROCK": "an-api-key"}))
