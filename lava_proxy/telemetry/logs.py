"""Logs: one line a record, secrets hidden, control characters escaped.

Nothing is logged per request on the hot path; the ledger is the record of requests.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

_EXPECTED = ("ASGI callable returned without completing response", "StreamCut")


class OneLine(logging.Formatter):
    """``time level logger message``, redacted; a traceback follows, redacted too."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        lines = self._redact(super().format(record)).split("\n")
        safe = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines]
        return "\n".join(safe)


class NoCuts(logging.Filter):
    """Drops the server's report of a stream that we ended on purpose."""

    def __init__(self, cut: type[BaseException]) -> None:
        super().__init__()
        self._cut = cut

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, self._cut) and _EXPECTED[0] not in record.getMessage()


def set_up_logs(level: str, redact: Callable[[str], str], cut: type[BaseException]) -> None:
    """Send everything to stderr in our form; called by ``serve``, never inside a host app."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(redact))
    handler.addFilter(NoCuts(cut))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, root.level))
