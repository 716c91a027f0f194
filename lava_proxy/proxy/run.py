"""Everything that belongs to one forwarded call, and what the process knows of its open calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lava_adapters.contract import Adapter, Ask, Framing
from lava_adapters.registry import Provider, Route
from lava_proxy.books.holds import Holds
from lava_proxy.net.upstream import Answer, Upload
from lava_proxy.proxy.caller import Caller
from lava_proxy.proxy.exchange import Exchange, State
from lava_proxy.proxy.head import NO_HEAD, Head
from lava_proxy.proxy.rewrite import Rewrite
from lava_proxy.proxy.running import Running
from lava_proxy.rules.gauge import Gauge
from lava_proxy.rules.limits import Shape
from lava_proxy.rules.settlement import Call
from lava_proxy.wire.event import Event
from lava_proxy.wire.mask import Masks
from lava_proxy.wire.tap import Tap
from lava_proxy.wire.target import Target

Stop = Literal["gone", "deadline", "lease"]


class Waiting(Protocol):
    """What waits for the provider's next piece."""

    since_s: float


@dataclass(frozen=True, slots=True)
class Draining:
    """How far answers are read on after their client has left; see `LAVA_CLIENT_DRAIN_*`."""

    providers: frozenset[str] = frozenset()
    longest_s: float = 60.0
    units: int = 4096
    most: int = 100


READING_KINDS = frozenset({"retrieve", "cancel"})
"""Routes that read a stored response: which model made it, only the answer says."""
MAKING_KINDS = frozenset({"responses", "interactions", "prediction"})
"""Routes that make one."""
DRAINABLE = frozenset({State.SENT, State.ERROR, State.BODY})


class StreamCut(Exception):
    """Raised out of the ASGI app on purpose: the server then ends the connection without the final
    chunk, so that no client takes a cut stream for a whole one. Logs filter it."""


@dataclass(slots=True, eq=False)
class Run:
    """One call from intake to settlement."""

    request_id: str
    started_s: float
    task: asyncio.Task[None] | None
    exchange: Exchange = field(default_factory=Exchange)
    began_s: float = 0.0
    """When its first attempt started; 0 where this is the first."""
    following: Run | None = None
    """The attempt that takes its place, now that its provider has failed."""
    head: Head = NO_HEAD
    caller: Caller | None = None
    provider: Provider | None = None
    route: Route | None = None
    params: dict[str, str] = field(default_factory=dict)
    """Of the route's path."""
    adapter: Adapter | None = None
    rewrite: Rewrite | None = None
    """The client speaks a dialect of its own choice (`/v1/rewrite`)."""
    target: Target | None = None
    shape: Shape | None = None
    """Whose endpoint was called, where the provider is found by the model (`by_model`)."""
    host: str = ""
    """The target's, as the provider's row has it."""
    ask: Ask | None = None
    managed: bool = True
    signed: frozenset[bytes] | None = None
    """Headers that the caller's own AWS signature covers: the request goes on as it came."""
    metadata: dict[str, str] = field(default_factory=dict)
    gauge: Gauge | None = None
    call: Call | None = None
    holds: Holds | None = None
    seq: int = 0
    upload: Upload | None = None
    """The request itself, where its body passes through."""
    answer: Answer | None = None
    tap: Tap | None = None
    running: Running | None = None
    waiting: Waiting | None = None
    """Its relay, once there is one."""
    waited_s: float = 0.0
    """Time spent waiting for the provider: not ours."""
    first_byte_s: float | None = None
    left_s: float | None = None
    """When the client left, where the answer is read to its end all the same."""
    sending_since_s: float | None = None
    """Since when a send to the client has not come back."""
    response_started: bool = False
    response_prefixes: tuple[bytes, ...] = ()
    """Headers that the provider's row lets pass beside the usual ones."""
    upstream_secrets: tuple[bytes, ...] = ()
    """The provider key, in all its parts: never shown to the client."""
    mask: Masks | None = None
    """Hides a managed key in what follows: an error of the provider's may echo it."""
    asked_usage: bool = False
    """We asked for the usage chunk; the caller did not."""
    unasked: tuple[bytes, int | None] | None = None
    """The caller's body and our cap: what is sent should the provider not know that question."""
    framing: Framing | None = None
    last_pieces: list[Event] = field(default_factory=list)
    """What is still to be sent once the books are closed."""
    stop: Stop | None = None
    """Why somebody cancelled the call's task."""
    flags: set[str] = field(default_factory=set)

    @property
    def reads_object(self) -> bool:
        """The call reads a stored response rather than making one."""
        return self.route is not None and self.route.kind in READING_KINDS

    def conceal(self) -> None:
        """The provider reports an error: from here on its bytes may show the managed key."""
        if self.managed and self.mask is None:
            self.mask = Masks(self.upstream_secrets)

    def part(self) -> None:
        """The call is over. It points at its tap and its relay, and they at it; parted, they are
        freed at once and not by the garbage collector, which stops every stream meanwhile."""
        self.waiting = None
        if self.tap is not None:
            self.tap.gate = self.tap.on_failed = None

    def cancel(self, why: Stop) -> None:
        """Stop the call from outside; its own task books it."""
        if self.stop is None and self.task is not None:
            self.stop = why
            self.task.cancel()


class OpenRuns:
    """The calls of this process that are on their way; one sweep watches all their clocks."""

    def __init__(
        self, *, stall_s: float, longest_s: float, draining: Draining | None = None
    ) -> None:
        self._stall_s = stall_s
        self._longest_s = longest_s
        self._draining = draining or Draining()
        self.runs: set[Run] = set()
        self.drains = 0
        """Calls whose client has left and whose answer is read all the same."""
        self.uploads = 0
        """Requests whose bodies are passing through."""

    def go_on(self, run: Run, following: Run) -> Run:
        """The next attempt of a call whose provider has failed; who cancelled that call just now
        means this attempt too."""
        self.ended(run)
        self.runs.add(following)
        following.stop = run.stop
        return following

    def ended(self, run: Run) -> None:
        """The call is over."""
        self.runs.discard(run)
        run.part()
        if run.left_s is not None:
            self.drains -= 1

    def left(self, run: Run, now_s: float) -> bool:
        """The client is gone: True when the answer is to be read to its end all the same. That
        lasts as long as its limits do: of time, of output, and of such answers at once."""
        if run.left_s is not None:
            return True
        limits = self._draining
        wanted = run.provider is not None and (
            run.provider.disconnect == "drain" or run.provider.id in limits.providers
        )
        if not wanted or run.exchange.state not in DRAINABLE or self.drains >= limits.most:
            return False
        run.left_s = now_s
        self.drains += 1
        self.bound(run)
        return True

    def _read_long(self, run: Run, now_s: float) -> bool:
        """The answer was read on without its client for as long as is allowed."""
        return run.left_s is not None and now_s - run.left_s > self._draining.longest_s

    def bound(self, run: Run) -> None:
        """Limit what an answer without a client may still make."""
        if run.running is not None:
            run.running.stop_after(self._draining.units)

    def sweep(self, now_s: float, lease_over: set[str]) -> None:
        """Stop calls whose reader stalls, that last too long, or whose lease is over."""
        for run in list(self.runs):
            since = run.sending_since_s
            stalls = since is not None and now_s - since > self._stall_s
            if stalls or self._read_long(run, now_s):
                run.cancel("gone")
            elif run.seq and now_s - (run.began_s or run.started_s) > self._longest_s:
                run.cancel("deadline")
            elif (
                run.exchange.state is State.BODY
                and run.holds is not None
                and run.holds.over(lease_over)
            ):
                run.cancel("lease")
