"""Log lines: one each, nothing secret, nothing forged, no noise about what we did on purpose."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest

from lava_proxy.telemetry.logs import (
    MESSAGE_MAX_CHARS,
    HostFilter,
    NoCuts,
    OneLine,
    set_up_logs,
)
from lava_proxy.wire.token import redact

LINE = re.compile(
    r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=(\w+) logger=(\S+) "
    r'message="((?:[^"\\]|\\.)*)"'
    r'(?: error="((?:[^"\\]|\\.)*)")?'
)


class Cut(Exception):
    """Stands for the stream that we ended."""


@pytest.fixture
def said() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine(redact))
    handler.addFilter(NoCuts(Cut))
    logger = logging.getLogger("uvicorn.stand_in")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.WARNING)  # a server that ran before may have set its parent's
    yield logger, stream
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


def parts(stream: io.StringIO) -> tuple[str, str, str, str | None]:
    text = stream.getvalue()
    assert text.count("\n") == 1
    found = LINE.fullmatch(text.rstrip("\n"))
    assert found is not None, text
    return found[1], found[2], found[3], found[4]


Said = tuple[logging.Logger, io.StringIO]


def test_a_record_is_a_line_of_pairs(said: Said) -> None:
    logger, stream = said
    logger.warning("%d rows wait, %s", 7, 'he said "no" \\ left')
    assert parts(stream) == (
        "warning",
        "uvicorn.stand_in",
        '7 rows wait, he said \\"no\\" \\\\ left',
        None,
    )


@pytest.mark.parametrize(
    "forged",
    [
        'x"\ntime=2026-01-01T00:00:00.000Z level=error logger=a message="forged',
        "\x1b[2J\x1b[31mred",
        "a\rb\x00c\x7f",
        "right\u202eleft\u2028line",
        "lone \ud800 surrogate",
    ],
)
def test_nothing_that_a_caller_sends_breaks_the_line(said: Said, forged: str) -> None:
    logger, stream = said
    logger.info("ignored below the level")
    logger.error("refused: %s", forged)
    level, name, message, _ = parts(stream)
    assert (level, name) == ("error", "uvicorn.stand_in")
    assert message.isprintable()


def test_a_traceback_stays_in_the_line_and_is_redacted(said: Said) -> None:
    logger, stream = said
    try:
        raise ValueError("key sk-proj-abcdefghijklmnopqrstuvwx0123456789 refused\nsecond line")
    except ValueError:
        logger.exception("call failed with Bearer aks_live_0123456789abcdefghijkl")
    _, _, message, error = parts(stream)
    assert error is not None
    assert "abcdefghijkl" not in message + error
    assert "[redacted]" in message
    assert "[redacted]" in error
    assert error.startswith("Traceback (most recent call last):\\n")
    assert error.endswith("\\nsecond line")


def test_a_long_message_keeps_both_ends(said: Said) -> None:
    logger, stream = said
    logger.error("begin" + " word" * MESSAGE_MAX_CHARS + "end")
    _, _, message, _ = parts(stream)
    assert len(message) < MESSAGE_MAX_CHARS + 10
    assert message.startswith("begin")
    assert message.endswith("end")


@pytest.mark.parametrize(
    "error", [Cut(), ExceptionGroup("tasks", [Cut(), ExceptionGroup("inner", [Cut()])])]
)
def test_our_own_cuts_are_not_reported(said: Said, error: Exception) -> None:
    logger, stream = said
    logger.error("Exception in ASGI application\n", exc_info=error)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    "error", [ValueError("x"), ExceptionGroup("tasks", [Cut(), ValueError("x")])]
)
def test_other_faults_are(said: Said, error: Exception) -> None:
    logger, stream = said
    logger.error("Exception in ASGI application\n", exc_info=error)
    assert parts(stream)[2] == "Exception in ASGI application"


def test_the_servers_noise_is_dropped_but_nobody_elses(said: Said) -> None:
    logger, stream = said
    logger.error("ASGI callable returned without completing response.")
    logger.warning("Unsupported upgrade request.")
    assert stream.getvalue() == ""
    record = logging.makeLogRecord({"name": "lava_proxy.x", "msg": "Unsupported upgrade request."})
    assert NoCuts(Cut).filter(record)


def test_a_hosts_access_log_keeps_its_arguments() -> None:
    """uvicorn's formatter takes them apart."""
    key = "aks_live_0123456789abcdefghijkl"
    args = ("127.0.0.1:5", "GET", f"/v1/models?key={key}", "1.1", 200)
    record = logging.makeLogRecord(
        {"name": "uvicorn.access", "msg": '%s - "%s %s HTTP/%s" %d', "args": args}
    )
    assert HostFilter(redact, Cut).filter(record)
    assert isinstance(record.args, tuple)
    assert (record.args[0], record.args[4]) == ("127.0.0.1:5", 200)
    assert key not in record.getMessage()


def test_set_up_takes_everything_over(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    server, access = logging.getLogger("uvicorn.error"), logging.getLogger("uvicorn.access")
    before = root.handlers[:], root.level, server.level, access.disabled
    try:
        set_up_logs("info", redact, Cut)
        logging.getLogger("lava_proxy.stand_in").info("one")
        server.info("Started server process")
        server.warning("two")
        access.info("GET /")
        lines = capsys.readouterr().err.splitlines()
    finally:
        root.handlers[:], level, server.level, access.disabled = before
        root.setLevel(level)
    assert [LINE.fullmatch(line)[3] for line in lines] == ["one", "two"]  # type: ignore[index]
