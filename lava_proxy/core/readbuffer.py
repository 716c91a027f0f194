"""One buffer to read into, shared by all connections of a thread.

What a socket brings is parsed, and so copied, in the turn of the event loop that reads it; until
the next read the buffer is nobody's. With one of its own each connection would hold tens of
kilobytes that it needs for microseconds, cold in the processor's caches every time.
"""

from __future__ import annotations

import threading

SIZE_BYTES = 64 * 1024

_thread = threading.local()


def read_buffer() -> memoryview:
    """The calling thread's; an event loop has one thread."""
    found: memoryview | None = getattr(_thread, "buffer", None)
    if found is None:
        found = _thread.buffer = memoryview(bytearray(SIZE_BYTES))
    return found
