"""Logs: one line a record (``key=value``), secrets hidden, control characters escaped.

    time=2026-11-23T20:04:11.207Z level=info logger=lava_proxy.app message="schema is at 3"

A record is one line whatever it carries: a traceback stands in ``error="..."`` with its line
breaks as ``\\n``, so that nothing a caller sends can forge a line. Nothing is logged per request on
the hot path; the ledger is the record of requests.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

MESSAGE_MAX_CHARS = 16_384
"""Longer messages and tracebacks are cut in the middle."""

SERVER_NOISE = (
    "ASGI callable returned without completing response",
    "Unsupported upgrade request",
    "No supported WebSocket library detected",
)
"""What uvicorn says about answers that we ended, or refused (426), on purpose."""

OURS = frozenset({"lava_proxy", "lava_adapters"})

Redact = Callable[[str], str]

_PLAIN = logging.Formatter()


class OneLine(logging.Formatter):
    """A record as ``key=value`` pairs on one line; `redact` hides credentials in all text."""

    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        parts = [
            f"time={at.removesuffix('+00:00')}Z",
            f"level={record.levelname.lower()}",
            f"logger={_escaped(record.name)}",
            f"message={self._quoted(record.getMessage())}",
        ]
        if record.exc_info and record.exc_info[0] is not None:
            parts.append(f"error={self._quoted(self.formatException(record.exc_info))}")
        if record.stack_info:
            parts.append(f"stack={self._quoted(record.stack_info)}")
        return " ".join(parts)

    def _quoted(self, text: str) -> str:
        text = self._redact(text.strip())
        if len(text) > MESSAGE_MAX_CHARS:
            half = MESSAGE_MAX_CHARS // 2
            text = f"{text[:half]} ... {text[-half:]}"
        return '"' + _escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


class NoCuts(logging.Filter):
    """Drops the server's reports of what we did on purpose: a stream that ended with one of `cuts`,
    and `SERVER_NOISE`."""

    def __init__(self, *cuts: type[BaseException]) -> None:
        super().__init__()
        self._cuts = cuts

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and self._is_cut(error):
            return False
        if not record.name.startswith("uvicorn"):
            return True
        message = record.getMessage()
        return not any(message.startswith(noise) for noise in SERVER_NOISE)

    def _is_cut(self, error: BaseException) -> bool:
        """A task group wraps what was raised in it."""
        if isinstance(error, BaseExceptionGroup):
            return all(self._is_cut(part) for part in error.exceptions)
        return isinstance(error, self._cuts)


class HostFilter(NoCuts):
    """For handlers of a host app, whose form of logs is its own: besides what `NoCuts` drops,
    credentials are hidden in every record's text, and a record of ours cannot forge a line."""

    def __init__(self, redact: Redact, *cuts: type[BaseException]) -> None:
        super().__init__(*cuts)
        self._redact = redact

    def filter(self, record: logging.LogRecord) -> bool:
        if not super().filter(record):
            return False
        if record.name.partition(".")[0] in OURS:
            record.msg, record.args = _escaped(self._redact(record.getMessage())), ()
        else:  # formatters of servers look at the arguments: they stay as they were
            record.msg = self._hidden(record.msg)
            if isinstance(record.args, tuple):
                record.args = tuple(self._hidden(arg) for arg in record.args)
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = self._redact(_PLAIN.formatException(record.exc_info))
        return True

    def _hidden(self, part: Any) -> Any:
        return self._redact(part) if isinstance(part, str) else part


def set_up_logs(level: str, redact: Redact, *cuts: type[BaseException]) -> None:
    """Send everything to stderr in our form; called by ``serve``, never inside a host app."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(redact))
    handler.addFilter(NoCuts(*cuts))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, root.level))


def _escaped(text: str) -> str:
    """Every character that does not print (line breaks, bidi marks, escapes) as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
