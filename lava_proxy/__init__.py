"""lava_proxy: a metering and billing gateway for AI APIs.

`LavaProxy` is the ASGI application (mount it, or serve it), `LavaMiddleware` wraps a host app,
`Settings` are the keyword form of the ``LAVA_*`` environment, `LogFilter` is for a host's logs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["LavaMiddleware", "LavaProxy", "LogFilter", "Settings", "__version__"]

if TYPE_CHECKING:
    from lava_proxy.app import LavaProxy, LogFilter
    from lava_proxy.core.settings import Settings
    from lava_proxy.middleware import LavaMiddleware


def __getattr__(name: str) -> object:
    """Load the application only when it is asked for: metrics of several workers need their
    environment set before anything is imported."""
    if name == "LavaProxy":
        from lava_proxy.app import LavaProxy

        return LavaProxy
    if name == "LogFilter":
        from lava_proxy.app import LogFilter

        return LogFilter
    if name == "LavaMiddleware":
        from lava_proxy.middleware import LavaMiddleware

        return LavaMiddleware
    if name == "Settings":
        from lava_proxy.core.settings import Settings

        return Settings
    raise AttributeError(name)
