"""What the demo shows: headings, checked facts, a stream as it runs, ledger rows.

On a terminal the running stream is one picture that is drawn anew; without one there are plain
lines and no control codes. What is meant to be pasted is never wrapped by us.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lava_proxy.cli.demo_client import Json
from lava_proxy.core.money import format_e10

DRAW_S = 0.05
"""Between two pictures on a terminal."""
LINE_S = 0.5
"""Between two lines where there is no terminal."""
TEXT_CHARS = 320
"""The end of a long answer is shown, so that it fits on a small terminal."""
PLACES = 4
"""Decimal places of an amount that are always shown."""


def usd(amount_e10: int) -> str:
    """An amount in USD with the places that it needs."""
    whole, _, part = format_e10(amount_e10).partition(".")
    return f"{whole}.{part.rstrip('0').ljust(PLACES, '0')}"


@dataclass(slots=True)
class Sight:
    """What there is to see of a running stream."""

    text: str = ""
    tokens: int = 0
    cost_e10: int = 0
    """So far, by the tokens seen and the meter's price."""
    left_e10: int = 0
    available_e10: int = 0
    """By the gateway's books, as is `leased_e10`."""
    leased_e10: int = 0

    def live(self) -> str:
        return f"{self.tokens} tokens  {usd(self.cost_e10)} so far  {usd(self.left_e10)} left"

    def books(self) -> str:
        return f"books: {usd(self.available_e10)} free, {usd(self.leased_e10)} leased"


class Screen:
    """Standard output, or any console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        drawn = console.is_terminal and not console.is_dumb_terminal
        self._drawn = drawn
        self._mark = "✓" if console.encoding.lower().startswith("utf") else "ok"

    @classmethod
    def of_stdout(cls) -> Screen:
        """Control codes only if standard output itself is a terminal, whatever variables say."""
        terminal = sys.stdout.isatty()
        return cls(Console(force_terminal=terminal, force_interactive=terminal))

    def heading(self, text: str) -> None:
        self._console.print()
        self._print(text, "bold")

    def note(self, text: str) -> None:
        self._print(text)

    def fact(self, text: str) -> None:
        """Something that was checked, and is so."""
        self._console.print(Text.assemble((f"  {self._mark} ", "bold green"), text))

    def failed(self, text: str) -> None:
        self._print(f"  FAILED: {text}", "bold red")

    def paste(self, text: str) -> None:
        """Lines to copy: a narrow terminal may break them, we do not."""
        self._console.print(Text(text, style="cyan"), soft_wrap=True)

    def ledger(self, rows: Iterable[Json]) -> None:
        """Ledger entries, a line below each transaction."""
        table = Table("transaction", "account", "kind", header_style="bold")
        table.add_column("USD", justify="right")
        last = None
        for row in rows:
            if last not in (None, row["transaction_id"]):
                table.add_section()
            last = row["transaction_id"]
            table.add_row(_short(row["transaction_id"]), _account(row), row["kind"], row["amount"])
        self._console.print(table)

    @contextmanager
    def watch(self, sight: Sight) -> Iterator[Watch]:
        """Show `sight` as it changes: call `changed` whenever it did. The last state stays."""
        watch = Drawing(self._console, sight) if self._drawn else Lines(self, sight)
        try:
            yield watch
        finally:
            watch.ended()

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style))


class Drawing:
    """One picture, drawn anew in place."""

    def __init__(self, console: Console, sight: Sight) -> None:
        self._sight = sight
        self._live = Live(self._picture(), console=console, auto_refresh=False)
        self._drawn_s = 0.0
        self._live.start()

    def changed(self) -> None:
        now_s = time.monotonic()
        if now_s - self._drawn_s >= DRAW_S:
            self._drawn_s = now_s
            self._live.update(self._picture(), refresh=True)

    def ended(self) -> None:
        self._live.update(self._picture(), refresh=True)
        self._live.stop()

    def _picture(self) -> Text:
        sight = self._sight
        return Text.assemble(
            (_tail(sight.text), "italic"),
            "\n",
            (sight.live(), "bold yellow"),
            "\n",
            (sight.books(), "dim"),
        )


class Lines:
    """A line now and then, and the text at the end."""

    def __init__(self, screen: Screen, sight: Sight) -> None:
        self._screen = screen
        self._sight = sight
        self._said_s = time.monotonic()
        self._said = ""

    def changed(self) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= LINE_S:
            self._said_s = now_s
            self._say()

    def ended(self) -> None:
        self._say()
        self._screen.note(f"    {_tail(self._sight.text)}")

    def _say(self) -> None:
        line = f"    {self._sight.live()}   {self._sight.books()}"
        if line != self._said:
            self._said = line
            self._screen.note(line)


Watch = Drawing | Lines


def _tail(text: str) -> str:
    return text.strip() if len(text) <= TEXT_CHARS else f"... {text[-TEXT_CHARS:].strip()}"


def _account(row: Json) -> str:
    """``customer:con_01...`` -> ``customer``: there is one of each here, but the parts of merchants
    and providers tell them apart."""
    head, _, rest = str(row["account"]).partition(":")
    if head == "merchant":
        return f"{head}:{rest.rpartition(':')[2]}"
    return head if head == "customer" else str(row["account"])


def _short(transaction_id: str) -> str:
    return f"...{transaction_id[-6:]}"
