"""A simulated provider, byte-true in the usual dialects: for demo, tests and benchmarks."""

from lava_proxy.net.simulated.provider import Scripted, SimulatedProvider
from lava_proxy.net.simulated.script import EVENT_STREAM, JSON, Ending, Piece, Script, SimRequest

__all__ = [
    "EVENT_STREAM",
    "JSON",
    "Ending",
    "Piece",
    "Script",
    "Scripted",
    "SimRequest",
    "SimulatedProvider",
]
