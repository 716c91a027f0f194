"""The real application on a disk that fails an fsync once a file says so."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from lava_proxy.app import LavaProxy
from lava_proxy.core.settings import Settings

BREAK = "break"
"""The first process that sees this file in its data folder takes it away and has the fault."""


class Proxy(LavaProxy):
    """Patches the system call, not our code."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        whole: Callable[[int], None] = os.fsync
        broken: list[bool] = []

        def fsync(fd: int) -> None:
            try:
                (settings.data_dir / BREAK).unlink()
                broken.append(True)
            except FileNotFoundError:
                pass
            if broken:
                raise OSError(errno.EIO, "Input/output error")
            whole(fd)

        os.fsync = fsync
