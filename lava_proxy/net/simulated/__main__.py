"""``python -m lava_proxy.net.simulated --port N``: the simulated provider as a process."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import uvloop

from lava_proxy.net.simulated.provider import SimulatedProvider


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM; the first line on stdout is the URL."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    provider = SimulatedProvider(
        host=options.host, port=options.port, record=False, spread=options.spread
    )
    async with provider:
        sys.stdout.write(provider.url + "\n")
        sys.stdout.flush()
        await stop.wait()


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m lava_proxy.net.simulated")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001)
    parser.add_argument(
        "--spread", action="store_true", help="streams that start together do not tick together"
    )
    uvloop.run(serve(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
