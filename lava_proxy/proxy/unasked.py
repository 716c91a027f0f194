"""Which servers refuse to be asked for usage: their streams are counted by what went out."""

from __future__ import annotations

UNASKED_FOR_S = 3600.0
UNASKED_MAX = 1024
"""Servers remembered at most: part of a server's name comes from callers."""


class UnaskedServers:
    """Servers that refuse to be asked for usage, each remembered for an hour."""

    def __init__(self) -> None:
        self._until_s: dict[tuple[str, str], float] = {}

    def knows(self, server: tuple[str, str], now_s: float) -> bool:
        return bool(self._until_s) and self._until_s.get(server, 0.0) > now_s

    def note(self, server: tuple[str, str], now_s: float) -> None:
        if len(self._until_s) >= UNASKED_MAX:
            self._until_s = {k: v for k, v in self._until_s.items() if v > now_s}
        if len(self._until_s) < UNASKED_MAX:
            self._until_s[server] = now_s + UNASKED_FOR_S
