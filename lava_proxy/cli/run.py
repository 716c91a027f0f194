"""Carrying a command's work out: settings from the environment, and errors as one line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from lava_proxy.core.environment import load_settings
from lava_proxy.core.errors import LavaError
from lava_proxy.core.money import MoneyError
from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.store.database import StoreError
from lava_proxy.store.migrate import MigrationError

T = TypeVar("T")


def run(work: Callable[[Settings], Awaitable[T]], **overrides: object) -> T:
    """Run a command; what the operator can mend is one line on stderr and status 2."""
    try:
        settings = load_settings(os.environ, **overrides)
        return asyncio.run(_await(work, settings))
    except (ConfigurationError, MigrationError, StoreError, LavaError, MoneyError) as error:
        typer.echo(f"lava-proxy: {error}", err=True)
        raise typer.Exit(2) from None


async def _await(work: Callable[[Settings], Awaitable[T]], settings: Settings) -> T:
    return await work(settings)
