"""Facts about AI providers: wire formats, hosts, paths. Imports nothing of the gateway's."""

from __future__ import annotations

from .contract import NO_USAGE, Adapter, Ask, AskError, Framing, Reader, Usage
from .provider import Provider, RegistryError, Route
from .quirks import Quirks
from .registry import Registry, load_family

__all__ = [
    "NO_USAGE",
    "Adapter",
    "Ask",
    "AskError",
    "Framing",
    "Provider",
    "Quirks",
    "Reader",
    "Registry",
    "RegistryError",
    "Route",
    "Usage",
    "load_family",
]
