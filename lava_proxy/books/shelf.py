"""A bounded memory of one kind of thing, with misses, and loads shared by those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

V = TypeVar("V")

MISS_S = 1.0
"""How long an unknown key, customer or meter is answered from memory."""


class Shelf(Generic[V]):
    """A bounded cache of one kind, whose loads are shared by those who wait for the same thing."""

    def __init__(self, limit: int, id_of: Callable[[V], str]) -> None:
        self._limit = limit
        self._id_of = id_of
        self.found: dict[object, V] = {}
        self._missing: dict[object, float] = {}
        self._loading: dict[object, asyncio.Task[V | None]] = {}
        self._keys_of: dict[str, set[object]] = {}
        self._generation = 0

    async def load(
        self, key: object, boot_s: float, fetch: Callable[[], Awaitable[V | None]]
    ) -> V | None:
        if self._missing.get(key, 0.0) > boot_s:
            return None
        task = self._loading.get(key)
        if task is None:  # a task of its own: whoever started it may be cancelled, others wait on
            going = self._load(key, boot_s, fetch)
            task = self._loading[key] = asyncio.get_running_loop().create_task(going)
            task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    async def _load(
        self, key: object, boot_s: float, fetch: Callable[[], Awaitable[V | None]]
    ) -> V | None:
        generation = self._generation
        try:
            value = await fetch()
        finally:
            if self._loading.get(key) is asyncio.current_task():
                del self._loading[key]
        if generation == self._generation:  # else it changed while we read: do not keep it
            self._keep(key, value, boot_s)
        return value

    def forget(self, object_id: str) -> None:
        self._generation += 1
        self._loading.clear()  # who asks from now on must not get what was read before
        self._missing.clear()
        for key in self._keys_of.pop(object_id, ()):
            self.found.pop(key, None)

    def clear(self) -> None:
        self._generation += 1
        self._loading.clear()
        self.found.clear()
        self._missing.clear()
        self._keys_of.clear()

    def _keep(self, key: object, value: V | None, boot_s: float) -> None:
        if value is None:
            if len(self._missing) >= self._limit:
                self._missing.clear()
            self._missing[key] = boot_s + MISS_S
            return
        if len(self.found) >= self._limit:
            self._drop(next(iter(self.found)))
        self.found[key] = value
        self._keys_of.setdefault(self._id_of(value), set()).add(key)

    def _drop(self, key: object) -> None:
        object_id = self._id_of(self.found.pop(key))
        keys = self._keys_of.get(object_id, set())
        keys.discard(key)
        if not keys:
            self._keys_of.pop(object_id, None)


def _retrieve(task: asyncio.Task[V]) -> None:
    """Nobody may be waiting for an error any more: that is no fault."""
    if not task.cancelled():
        task.exception()
