"""``lava-proxy serve``: one process, or a supervisor over several."""

from __future__ import annotations

import importlib
import os

from lava_proxy.cli.handover import Order
from lava_proxy.core.environment import known_names, unknown_names
from lava_proxy.core.settings import ConfigurationError, Settings

APP = "lava_proxy.app:LavaProxy"
NEEDED = ("httptools", "uvloop")
"""The strict parser and the fast loop: uvicorn would quietly do without."""


def serve(settings: Settings, app: str = APP) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean drain. `app` is an import string of a callable
    that takes settings and answers an application (`cli/server.py`, `Served`)."""
    check_environment()
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # ours to set, for workers only
    order = Order(settings, app)
    if settings.workers == 1:
        from lava_proxy.cli.worker import run_alone

        return run_alone(order)
    from lava_proxy.cli.supervisor import Supervisor

    return Supervisor(order).run()


def check_environment() -> None:
    """Refuse to start with a setting that nothing reads, or without the strict parser."""
    complaints = unknown_names(os.environ)
    if complaints:
        known = ", ".join(known_names())
        raise ConfigurationError(f"{'; '.join(complaints)}. Known settings: {known}")
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigurationError(
                f"{name} cannot be loaded ({error}): pip install {name}"
            ) from None
