"""What passes between the supervisor and a worker, over one socket pair.

Down: the order (settings and application, as JSON: secrets never stand in arguments), then single
bytes that say what to do. Up: single bytes that say what happened. When either side is gone the
other one reads the end of the stream: a worker whose supervisor was killed drains and ends, instead
of serving on for ever.

Commands do not travel as signals: a terminal or systemd may signal the whole group, and a second
SIGTERM must not look like the impatience of a person.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from lava_proxy.core.environment import load_settings
from lava_proxy.core.settings import Settings

DRAIN = b"d"
HURRY = b"h"
READY = b"r"
DRAINING = b"g"
BEAT = b"b"
"""Its Python runs."""
BEAT_S = 1.0

CONFIGURATION_STATUS = 2
"""A worker that ends so would end so again: the supervisor stops."""
START_FAILED_STATUS = 3
BROKEN_STATUS = 4
"""Drained because its journal cannot be written any more: a fresh process has a fresh journal."""
HUNG_STATUS = 5
"""Ended as it was, because its event loop did not turn any more."""

_SIZE_BYTES = 8
_ORDER_MAX_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to serve. `app` is an import string of a callable that takes settings."""

    settings: Settings
    app: str


def send_order(channel: socket.socket, order: Order) -> None:
    """Tell a fresh worker what to do."""
    values = {name: getattr(order.settings, name) for name in Settings.model_fields}
    text = json.dumps({"settings": values, "app": order.app}, default=_plain).encode()
    channel.sendall(len(text).to_bytes(_SIZE_BYTES, "big") + text)


def receive_order(channel: socket.socket) -> Order:
    """The other end of `send_order`. Raises EOFError when the supervisor is gone."""
    size = int.from_bytes(_exactly(channel, _SIZE_BYTES), "big")
    if size > _ORDER_MAX_BYTES:
        raise EOFError("this is not an order")
    read = json.loads(_exactly(channel, size))
    return Order(load_settings({}, **read["settings"]), read["app"])


def hear(channel: socket.socket) -> bytes | None:
    """What the other side said since the last time; None when it is gone."""
    try:
        return channel.recv(64, socket.MSG_DONTWAIT) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None


def tell(channel: socket.socket, word: bytes) -> None:
    """Say it; that the other side is gone is heard by reading."""
    try:
        channel.send(word, socket.MSG_DONTWAIT)
    except OSError:
        return


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = channel.recv(size - len(data))
        if not piece:
            raise EOFError("the supervisor is gone")
        data += piece
    return data


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a setting of type {type(value).__name__} cannot be handed over")
