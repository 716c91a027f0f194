"""Reading the settings from the environment, and naming what nobody reads.

An unknown ``LAVA_*`` name stops ``serve``: a limit that is silently ignored is worse than none.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from pydantic import ValidationError

from lava_proxy.core import provider_keys
from lava_proxy.core.settings import FOREIGN, PREFIX, ConfigurationError, Settings


def load_settings(environ: Mapping[str, str], **overrides: object) -> Settings:
    """Settings from `environ` (used for the provider keys; pydantic reads the rest itself)."""
    keys = provider_keys.keys_in(environ)
    try:
        return Settings(**{provider_keys.FIELD: keys, **overrides})  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = "; ".join(
            f"{PREFIX}{'.'.join(str(p) for p in e['loc']).upper()}: {e['msg']}"
            for e in error.errors()
        )
        raise ConfigurationError(wrong) from None


def known_names() -> list[str]:
    """Every ``LAVA_*`` name that the gateway reads, the provider keys as a pattern."""
    names = [PREFIX + name.upper() for name in Settings.model_fields if name != provider_keys.FIELD]
    return [*names, provider_keys.PREFIX + "<PROVIDER>"]


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """One sentence for each ``LAVA_*`` name that nothing reads, with the nearest known one."""
    known = set(known_names())
    complaints = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or name in FOREIGN:
            continue
        if name.startswith(provider_keys.PREFIX):
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        complaints.append(f"{name} is not a setting{hint}")
    return complaints
