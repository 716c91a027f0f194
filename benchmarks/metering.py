"""What metering one event costs, by family, in CPU time: ``python -m benchmarks.metering``.

Every recorded stream is fed through the gateway's tap, event by event as it would come, with a
gate that looks at the running usage, as the relay's does. What is not streamed counts as one event.
Where no provider's answer was recorded, a made one stands in.
"""

from __future__ import annotations

import time
from collections import defaultdict

from benchmarks.estimates import ABSENT, Recorded, recordings
from lava_adapters.contract import Framing
from lava_proxy.rules.estimate import Profile, estimate_tokens
from lava_proxy.wire.tap import Tap

ROUNDS = 5
LEAST_S = 0.02
"""A round repeats a recording until it took so long."""
GOAL_US = 2.0
MADE = {
    "opaque": b"\x00" * 1000,
    "watsonx": b'{"model_id":"m","results":[{"generated_text":"the sun","generated_token_count":2,'
    b'"input_token_count":8,"stop_reason":"eos_token"}]}',
}
"""Families of which there is no recording."""


def measure(rounds: int = ROUNDS, least_s: float = LEAST_S) -> dict[tuple[str, str], list[float]]:
    """(family, "streamed" or "whole") -> microseconds per event, and how many events."""
    found: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for streamed in (True, False):
        for recorded in recordings(streamed=streamed):
            pieces = recorded.events() if streamed else [recorded.wire()]
            if pieces:
                us = _timed(recorded, pieces, rounds, least_s)
                found[recorded.family, "streamed" if streamed else "whole"].append(
                    (us, len(pieces))
                )
    for family, made in MADE.items():
        row = {"framing": "json", "stream": False, "request": {}, "model": "m"}
        us = _timed(Recorded(row, family, ""), [made], rounds, least_s)
        found[family, "whole"].append((us, 1))
    return {
        key: [sum(us * n for us, n in each) / sum(n for _, n in each), sum(n for _, n in each)]
        for key, each in found.items()
    }


def _timed(recorded: Recorded, pieces: list[bytes], rounds: int, least_s: float) -> float:
    """The best round's microseconds per event."""
    best = float("inf")
    for _ in range(rounds):
        done, started = 0, time.process_time()
        while True:
            _run(recorded, pieces)
            done += len(pieces)
            took = time.process_time() - started
            if took >= least_s:
                break
        best = min(best, took / done)
    return best * 1e6


def _run(recorded: Recorded, pieces: list[bytes]) -> None:
    reader = recorded.reader()
    tap = Tap(recorded.framing, reader)
    profile = Profile()

    def gate() -> bool:
        reader.usage()
        estimate_tokens(reader.deltas, reader.delta_bytes, reader.tool_calls, profile)
        return True

    if recorded.framing is not Framing.JSON:
        tap.gate = gate
    for piece in pieces:
        tap.feed(piece)
    tap.finish()
    reader.usage()


def main() -> None:
    """Print the table."""
    found = measure()
    if not any(how == "streamed" for _, how in found):
        raise SystemExit(ABSENT)
    print("| family | answers | events | us CPU per event |\n|---|---|---|---|")
    spent = events = 0.0
    for (family, how), (us, count) in sorted(found.items()):
        print(f"| {family} | {how} | {count:.0f} | {us:.2f} |")
        if how == "streamed":
            spent, events = spent + us * count, events + count
    print(f"| all | streamed | {events:.0f} | {spent / events:.2f} (goal {GOAL_US:.0f}) |")


if __name__ == "__main__":
    main()
