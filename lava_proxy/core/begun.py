"""Coroutines that are begun outside the machinery of waiting, because most do not wait at all."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import TypeVar

T = TypeVar("T")


@types.coroutine
def rest_of(begun: Coroutine[object, None, T], waiting: object) -> Generator[object, None, T]:
    """Go on with a coroutine that waits for `waiting`: what ``yield from`` does, begun late."""
    while True:
        try:
            yield waiting
        except BaseException as error:
            try:
                waiting = begun.throw(error)
            except StopIteration as ended:
                value: T = ended.value
                return value
        else:
            try:
                waiting = begun.send(None)
            except StopIteration as ended:
                value = ended.value
                return value
