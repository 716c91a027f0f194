"""What ``tc netem`` does, for machines whose kernel has it not: packets between two TUN devices are
delayed, lost, doubled and so put out of order, at random from a seed.

A process of its own: ``bad_link.py NEAR FAR SEED``. It makes both devices, says ``ready``, and then
takes lines ``<delay ms> <jitter ms> <lost per mille> <doubled per mille>`` on stdin; at its end it
says what it did to how many packets.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

SET_DEVICE = 0x400454CA
TUN, PLAIN = 0x0001, 0x1000
PACKET_BYTES = 65536
WAITING_MAX = 20_000
"""A queue has an end: what comes beyond it is lost."""


def make_device(name: str) -> int:
    """Raises OSError where that is not permitted."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, SET_DEVICE, struct.pack("16sH", name.encode(), TUN | PLAIN))
    return fd


class Relay:
    """Both directions of one link."""

    def __init__(self, near: int, far: int, seed: int) -> None:
        self._other = {near: far, far: near}
        self._rng = random.Random(seed)
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._number = 0
        self._last_s = 0.0
        self.delay_ms = self.jitter_ms = self.lost = self.doubled = 0.0
        self.figures = {"packets": 0, "lost": 0, "doubled": 0, "overtook": 0}

    def run(self) -> None:
        """Until stdin ends."""
        orders = sys.stdin.fileno()
        while True:
            pause_s = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            ready, _, _ = select.select([*self._other, orders], [], [], pause_s)
            for fd in ready:
                if fd != orders:
                    self._take(fd)
                    continue
                order = os.read(orders, 4096).decode().split("\n")
                if order == [""]:
                    return
                words = [float(word) for word in order[-2].split()]
                self.delay_ms, self.jitter_ms, self.lost, self.doubled = words
            self._let_go()

    def _take(self, fd: int) -> None:
        for _ in range(64):
            try:
                packet = os.read(fd, PACKET_BYTES)
            except BlockingIOError:
                return
            self.figures["packets"] += 1
            if self._rng.random() * 1000 < self.lost or len(self._waiting) > WAITING_MAX:
                self.figures["lost"] += 1
                continue
            self._keep(fd, packet)
            if self._rng.random() * 1000 < self.doubled:
                self.figures["doubled"] += 1
                self._keep(fd, packet)

    def _keep(self, fd: int, packet: bytes) -> None:
        delay_ms = max(0.0, self._rng.gauss(self.delay_ms, self.jitter_ms))
        due_s = time.monotonic() + delay_ms / 1000
        self.figures["overtook"] += due_s < self._last_s
        self._last_s = due_s
        self._number += 1
        heapq.heappush(self._waiting, (due_s, self._number, self._other[fd], packet))

    def _let_go(self) -> None:
        now_s = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now_s:
            _, _, fd, packet = heapq.heappop(self._waiting)
            try:
                os.write(fd, packet)
            except OSError:  # the device is down, or its queue is full
                self.figures["lost"] += 1


def main() -> None:
    near, far = (make_device(name) for name in sys.argv[1:3])
    relay = Relay(near, far, int(sys.argv[3]))
    print("ready", flush=True)
    relay.run()
    print(" ".join(f"{name}={count}" for name, count in relay.figures.items()), flush=True)


if __name__ == "__main__":
    main()
