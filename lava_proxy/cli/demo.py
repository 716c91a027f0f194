"""``lava-proxy demo``: everything on one machine, told as a story, then served for you to try.

PostgreSQL, a simulated provider and the gateway start in this process (PostgreSQL as its child),
on loopback, in a folder that is removed at the end unless you named one. Nothing is taken from
``LAVA_*``: a demo must not meet a real database or a real key.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import uvloop
from pydantic import SecretStr

from lava_proxy.app import LavaProxy
from lava_proxy.cli import tools
from lava_proxy.cli.demo_asks import ANTHROPIC_HOST, OPENAI_HOST, control_word, openai
from lava_proxy.cli.demo_calls import StepFailed
from lava_proxy.cli.demo_client import Client
from lava_proxy.cli.demo_screen import Screen
from lava_proxy.cli.demo_story import TOP_UP, Story
from lava_proxy.cli.demo_watch import Payer
from lava_proxy.cli.listener import listen, port_of, url_of
from lava_proxy.cli.server import Server
from lava_proxy.core.environment import load_settings
from lava_proxy.core.errors import LavaError
from lava_proxy.core.settings import PREFIX, ConfigurationError, Settings
from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.proxy.run import StreamCut
from lava_proxy.store.database import StoreError
from lava_proxy.store.migrate import MigrationError
from lava_proxy.telemetry.logs import set_up_logs
from lava_proxy.wire.token import redact

HOST = "127.0.0.1"
DRAIN_S = 2.0
SLICE_TOKENS = 24
"""Credit is leased to the worker in small slices here, so that one can watch it move."""
PASTED_TOKENS = 150
PASTED_PACE_MS = 30

SIGNALS = (signal.SIGINT, signal.SIGTERM)

FAILED = 1
CANNOT_START = 2
INTERRUPTED = 130


def run_demo(*, once: bool, port: int, data_dir: Path | None) -> int:
    """Tell the story on `port` (any free one with `once`, or where it is taken), then serve until
    Ctrl-C unless `once`. 0 if every step held, 1 if one did not, 2 if it could not start."""
    screen = Screen.of_stdout()
    set_up_logs("error", redact, StreamCut)
    try:
        with _folder(data_dir) as folder:
            return uvloop.run(_demo(screen, once, 0 if once else port, folder))
    except (ConfigurationError, MigrationError, StoreError, LavaError, OSError) as error:
        screen.failed(str(error))
        return CANNOT_START
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


async def _demo(screen: Screen, once: bool, port: int, folder: Path) -> int:
    """Start everything, tell the story beside the server, stop everything."""
    ending = _Ending()
    ignored = sorted(name for name in os.environ if name.startswith(PREFIX))
    if ignored:
        screen.note(f"A demo does not use your {', '.join(ignored)}.")
    screen.note("Starting PostgreSQL, a simulated provider and the gateway ...")
    async with SimulatedProvider() as provider:
        settings = _settings(folder, provider.url)
        proxy = LavaProxy(settings)
        # Opened here and not by the server, so that it is closed whenever a signal comes.
        async with proxy.lifespan():
            listener = _listen(screen, port)
            url = url_of(HOST, port_of(listener))
            telling = asyncio.create_task(_tell(screen, provider, settings, url, once))
            return await _serve(proxy, listener, telling, once, ending)


async def _serve(
    proxy: LavaProxy,
    listener: socket.socket,
    telling: asyncio.Task[int],
    once: bool,
    ending: _Ending,
) -> int:
    """Serve while the story is told, and on until a signal comes unless `once`."""
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        loop.call_soon_threadsafe(telling.cancel)  # a signal handler may be anywhere

    server = Server(proxy, DRAIN_S, on_ready=ending.left_to_the_server, on_drain=interrupted)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.wait({serving, telling}, return_when=asyncio.FIRST_COMPLETED)
        told = telling.done() and not telling.cancelled()
        status = telling.result() if told else INTERRUPTED
        if status == 0 and not once:
            await asyncio.wait({serving})  # should we be cancelled, it is not
    finally:
        telling.cancel()
        if not server.should_exit:
            server.handle_exit(signal.SIGINT, None)  # the quick way, as for Ctrl-C
        await asyncio.wait({serving, telling})
    serving.result()
    return status


async def _tell(
    screen: Screen, provider: SimulatedProvider, settings: Settings, url: str, once: bool
) -> int:
    """The story, and what to try next."""
    made = await tools.create_key(settings, "demo", False, "demo")
    client = Client(url, made["secret_key"])
    story = Story(screen, client, provider, settings)
    try:
        payer = await story.tell()
        if not once:
            await story.top_up(payer)
            _invite(screen, url, payer)
    except (StepFailed, LavaError) as error:
        screen.failed(str(error))
        return FAILED
    finally:
        await client.close()
    return 0


def _invite(screen: Screen, url: str, payer: Payer) -> None:
    """What to paste, and where to look."""
    screen.heading(f"Now you: {payer.customer_id} has {TOP_UP} USD more")
    screen.paste(_curl(url, payer.token))
    screen.note("(`user` tells the simulated provider how many tokens, and how many ms apart.)")
    screen.heading("OpenAI SDK; Anthropic's takes the same key")
    screen.paste(f'base_url="{url}/openai/v1"\napi_key="{payer.token}"')
    screen.paste(f'base_url="{url}/anthropic"')
    screen.heading("Metrics")
    screen.paste(f"{url}/metrics")
    screen.note("\nServing until Ctrl-C.")


def _curl(url: str, token: str) -> str:
    """A streamed completion as a shell command."""
    ask = openai("Tell me a story.", control_word(PASTED_TOKENS, PASTED_PACE_MS))
    words = (
        ("curl", "-N", f"{url}/v1/forward?u={ask.url}"),
        ("-H", f"Authorization: Bearer {token}"),
        ("-H", "Content-Type: application/json"),
        ("-d", orjson.dumps(ask.body).decode()),
    )
    return " \\\n  ".join(shlex.join(line) for line in words)


def _settings(folder: Path, provider_url: str) -> Settings:
    """Every setting is given, so that none is looked for in the environment."""
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in Settings.model_fields.items()
    }
    ours = {
        "data_dir": folder,
        "drain_timeout_s": DRAIN_S,
        "output_slice_tokens": SLICE_TOKENS,
        # The simulated provider sends one token an event: counting those is exact.
        "exact_tokens": False,
        "upstream_overrides": {OPENAI_HOST: provider_url, ANTHROPIC_HOST: provider_url},
        "provider_keys": {
            name: SecretStr(f"simulated-key-of-{name}") for name in ("openai", "anthropic")
        },
    }
    return load_settings({}, **(defaults | ours))


def _listen(screen: Screen, port: int) -> socket.socket:
    try:
        return listen(HOST, port)
    except ConfigurationError as error:
        screen.note(f"{error}: taking another port.")
        return listen(HOST, 0)


@contextmanager
def _folder(data_dir: Path | None) -> Iterator[Path]:
    """The folder for everything: yours stays, ours goes."""
    if data_dir is not None:
        yield data_dir
        return
    with tempfile.TemporaryDirectory(prefix="lava-demo-") as made, _undisturbed_end():
        yield Path(made)


@contextmanager
def _undisturbed_end() -> Iterator[None]:
    """From the end of this on, signals change nothing: a folder is removed, which is soon done."""
    try:
        yield
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


class _Ending:
    """The first signal ends the demo, whatever it is at; later ones change nothing, and so do all
    that come while the server runs, which takes them itself. PostgreSQL is a process of its own: it
    must be stopped, not left behind by somebody impatient."""

    def __init__(self) -> None:
        self.begun = False
        self._task = asyncio.current_task()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._signal)

    def _signal(self) -> None:
        if not self.begun and self._task is not None:
            self._task.cancel()
        self.begun = True

    def left_to_the_server(self) -> None:
        self.begun = True
