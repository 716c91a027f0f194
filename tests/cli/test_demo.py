"""``lava-proxy demo``: the story holds, its commands can be pasted, and nothing is left behind."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from rich.console import Console

from lava_proxy.cli import demo
from lava_proxy.cli.demo_asks import anthropic, openai
from lava_proxy.cli.demo_calls import Merchant, StepFailed
from lava_proxy.cli.demo_client import Client
from lava_proxy.cli.demo_screen import Screen, Sight, usd
from lava_proxy.cli.listener import listen, port_of
from lava_proxy.core.money import E10
from lava_proxy.net.simulated import Ending, Piece, Script, SimulatedProvider

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 50.0
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ONCE = ("-m", "lava_proxy", "demo", "--once")
QUICK_STORY = """
from lava_proxy.cli import demo, demo_story
demo_story.PACE_MS = demo.PASTED_PACE_MS = 5
raise SystemExit(demo.run_demo(once=False, port=0, data_dir=None))
"""
POOR_STORY = """
from lava_proxy.cli import demo, demo_story
demo_story.FIRST_TOKENS, demo_story.PACE_MS = 2000, 1
raise SystemExit(demo.run_demo(once=True, port=0, data_dir=None))
"""


def environment(scratch: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LAVA_", "FORCE_COLOR"))}
    path = os.pathsep.join(str(p) for p in (ROOT, ROOT / "adapters"))
    return {**kept, "PYTHONPATH": path, "TMPDIR": str(scratch), "PYTHONUTF8": "1", **more}


def begun(scratch: Path, *words: str) -> subprocess.Popen[str]:
    """It runs, its output line by line."""
    return subprocess.Popen(
        [sys.executable, *words],
        env=environment(scratch, COLUMNS="200", PYTHONUNBUFFERED="1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_line(process: subprocess.Popen[str], part: str) -> None:
    """Until a line has this in it, or the output ends."""
    assert process.stdout is not None
    for line in process.stdout:
        if part in line:
            return


def run(scratch: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env=environment(scratch, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def postgres_under(folder: Path) -> list[str]:
    """Command lines of processes that name a folder below this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.fixture
def scratch(memory: Path | None) -> Iterator[Path]:
    """Where the demo's temporary folders go; empty again when it has ended. Not below pytest's own,
    whose names are too long for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="demo-", dir=memory) as folder:
        yield Path(folder)


def test_once_without_a_terminal(scratch: Path) -> None:
    began_s = time.monotonic()
    done = run(scratch, *ONCE, COLUMNS="200", LAVA_DATABASE_URL="postgresql://nowhere.invalid/x")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert CONTROL.search(done.stdout) is None
    text = done.stdout
    assert "does not use your LAVA_DATABASE_URL" in text
    assert len(set(re.findall(r"(\d+) tokens  [0-9.]+ so far  [0-9.]+ left", text))) > 5
    assert len(set(re.findall(r"books: ([0-9.]+ free, [0-9.]+ leased)", text))) > 3
    for step in (
        "it came whole: status 200, 120 of 120 tokens",
        "tokens x 0.0001 = 0.0131 USD",
        "error event budget_exhausted, connection ended without its proper end",
        "status 402, insufficient_credit",
        "each sums to zero",
        "granted 0.0300 = available 0.0000 + leased 0.0000 + spent 0.0300 + expired 0.0000",
    ):
        assert step in text
    assert text.count("✓") == 12
    assert list(scratch.iterdir()) == []
    assert postgres_under(scratch) == []
    assert time.monotonic() - began_s < 30


def test_a_step_that_does_not_hold(scratch: Path) -> None:
    """A first stream that the credit does not cover: the story says so and ends with status 1."""
    done = run(scratch, "-c", POOR_STORY, COLUMNS="200")
    assert done.returncode == demo.FAILED, done.stdout + done.stderr
    failure = done.stdout.strip().splitlines()[-1]
    assert "FAILED: this does not hold: it came whole: status 200," in failure
    assert "of 2000 tokens" in failure
    assert list(scratch.iterdir()) == []
    assert postgres_under(scratch) == []


def test_serving_on_a_narrow_terminal(scratch: Path) -> None:
    """Drawn in place, 44 columns wide; the printed command works; Ctrl-C ends it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", QUICK_STORY],
        env=environment(scratch, COLUMNS="44", LINES="24", TERM="xterm"),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        shown = read_until(ours, "Serving until Ctrl-C.")
        assert "\x1b[" in shown, "drawn in place"
        text = CONTROL.sub("", shown).replace("\r", "")
        metrics_url = re.search(r"^(http://\S+/metrics)$", text, re.MULTILINE)
        assert metrics_url is not None
        assert b"lava_" in fetch(metrics_url[1], {}, None)
        answer = paste(text)
        assert answer.count(b'"content":" ') == demo.PASTED_TOKENS
        assert answer.endswith(b"data: [DONE]\n\n")
        base_url = re.search(r'^base_url="(http://\S+/openai/v1)"$', text, re.MULTILINE)
        api_key = re.search(r'^api_key="(\S+)"$', text, re.MULTILINE)
        assert base_url is not None
        assert api_key is not None
        models = fetch(f"{base_url[1]}/models", {"Authorization": f"Bearer {api_key[1]}"}, None)
        assert json.loads(models)["object"] == "list"
        process.send_signal(signal.SIGINT)
        rest = read_until(ours, None)
        assert process.wait(PATIENCE_S) == 0, rest
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
    assert list(scratch.iterdir()) == []
    assert postgres_under(scratch) == []


@pytest.mark.parametrize("pause_s", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_while_it_ends(
    scratch: Path, number: signal.Signals, pause_s: float
) -> None:
    """Somebody is impatient: it ends as it would have, and says nothing of its inside."""
    process = begun(scratch, "-c", QUICK_STORY)
    try:
        read_line(process, "Serving until")
        process.send_signal(number)
        time.sleep(pause_s)
        process.send_signal(number)
        rest, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode in (0, demo.INTERRUPTED)
    assert errors == ""
    assert "Traceback" not in rest  # where the log goes
    assert list(scratch.iterdir()) == []
    assert postgres_under(scratch) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle(scratch: Path, number: signal.Signals) -> None:
    process = begun(scratch, *ONCE)
    try:
        read_line(process, " so far ")
        process.send_signal(number)
        rest, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == demo.INTERRUPTED, rest + errors
    assert errors == ""
    assert "FAILED" not in rest
    assert list(scratch.iterdir()) == []
    assert postgres_under(scratch) == []


def read_until(terminal: int, marker: str | None) -> str:
    """What the terminal shows up to `marker`, or to its end."""
    shown = b""
    deadline_s = time.monotonic() + PATIENCE_S
    while marker is None or marker not in CONTROL.sub("", shown.decode(errors="replace")):
        ready, _, _ = select.select([terminal], [], [], deadline_s - time.monotonic())
        assert ready, shown.decode(errors="replace")
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other side is closed
            piece = b""
        if not piece:
            assert marker is None, shown.decode(errors="replace")
            break
        shown += piece
    return shown.decode(errors="replace")


def paste(text: str) -> bytes:
    """Do what the printed ``curl`` would."""
    command = re.search(r"^curl (?:.*\\\n)*.*$", text, re.MULTILINE)
    assert command is not None
    words = shlex.split(command[0])
    assert words[:2] == ["curl", "-N"]
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    return fetch(words[2], headers, words[words.index("-d") + 1].encode())


def fetch(url: str, headers: Mapping[str, str], data: bytes | None) -> bytes:
    request = urllib.request.Request(url, data, dict(headers))
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        body: bytes = answer.read()
    return body


def test_a_port_that_is_taken() -> None:
    out = io.StringIO()
    with listen(demo.HOST, 0) as taken:
        other = demo._listen(Screen(Console(file=out, width=200)), port_of(taken))
        with other:
            assert port_of(other) != port_of(taken)
    assert "taking another port" in out.getvalue()


def test_a_port_that_is_free() -> None:
    with socket.socket() as probe:
        probe.bind((demo.HOST, 0))
        free = int(probe.getsockname()[1])
    with demo._listen(Screen(Console(file=io.StringIO())), free) as listener:
        assert port_of(listener) == free


def test_settings_come_from_nowhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAVA_DATABASE_URL", "postgresql://nowhere.invalid/x")
    monkeypatch.setenv("LAVA_PROVIDER_KEY_OPENAI", "a-real-key")
    monkeypatch.setenv("LAVA_LEASE_S", "7")
    settings = demo._settings(tmp_path, "http://127.0.0.1:9")
    assert settings.database_url is None
    assert settings.lease_s == 300.0
    assert settings.provider_keys["openai"].get_secret_value() == "simulated-key-of-openai"
    assert settings.data_dir == tmp_path


@pytest.mark.parametrize("width", [12, 30, 200])
def test_the_screen_at_any_width(width: int) -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=width))
    sight = Sight()
    with screen.watch(sight) as view:
        sight.text, sight.tokens, sight.cost_e10, sight.left_e10 = "word " * 200, 200, E10, 5
        view.changed()
    screen.ledger([row("t1", "customer:con_1", "-1"), row("t2", "merchant:m_1:revenue", "1")])
    screen.paste("curl " + "x" * 300)
    text = out.getvalue()
    assert "curl " + "x" * 300 + "\n" in text
    words = " ".join(text.split())
    assert "200 tokens 1.0000 so far 0.0000000005 left" in words
    assert "\x1b" not in text


def row(transaction_id: str, account: str, amount: str) -> dict[str, str]:
    members = {"account": account, "kind": "charge", "amount": amount}
    return {"transaction_id": transaction_id, **members}


def test_a_console_that_knows_no_check_mark() -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as out:
        screen = Screen(Console(file=out, width=80))
        screen.fact("it holds")
        screen.ledger([row("t1", "customer:con_1", "-1")])
        out.flush()
        assert b"  ok it holds" in raw.getvalue()


def test_amounts() -> None:
    assert usd(10**6) == "0.0001"
    assert usd(3 * 10**8) == "0.0300"
    assert usd(18_330_001) == "0.0018330001"
    assert usd(E10) == "1.0000"


async def test_both_dialects_are_read() -> None:
    """Text, counts and the end of a stream, and a stream that breaks off."""
    async with SimulatedProvider() as provider:
        client = Client(provider.url, "aks_live_x")
        for ask, counted in ((openai("hi", "sim-5-0"), None), (anthropic("hi", "sim-5-0"), 5)):
            provider.script["/v1/forward"] = []
            path = "/v1/messages" if "anthropic" in ask.url else "/v1/chat/completions"
            stream = await client._send("POST", path, "token", ask.headers, ask.body)
            heard = [ask.hear(event) async for event in stream.events()]
            assert "".join(one.text for one in heard) == " one two three four five"
            assert stream.whole
            assert max((one.output_tokens or 0 for one in heard), default=0) == (counted or 0)
            assert {one.error for one in heard} == {None}
        torn = Script([Piece(b'data: {"choices":[]}\n\n')], ends=Ending.TRUNCATED)
        provider.script["/v1/forward"] = torn
        ask = openai("hi", "sim-5-0")
        stream = await client.stream(ask.url, "token", {}, ask.body)
        assert [event async for event in stream.events()] == [{"choices": []}]
        assert not stream.whole
        await client.close()


async def test_an_answer_that_is_not_200_is_a_failed_step() -> None:
    async with SimulatedProvider() as provider:
        client = Client(provider.url, "aks_live_x")
        provider.script["/v1/customers"] = Script.json({"error": {"code": "conflict"}}, status=409)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StepFailed, match="POST /v1/customers answers 409"):
                await Merchant(client).create_customer("Ada")
        await client.close()
