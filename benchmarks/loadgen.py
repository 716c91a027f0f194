"""Load generator: raw HTTP/1.1 on asyncio, its own process, every answer checked.

A job (JSON, one line on stdin) names the target, the request and how long to go on. Three lines
come back: ``{"event": "start"}`` when warm-up is over, ``{"event": "stop"}`` when the measured time
has ended, and the result. Whoever samples a proxy's CPU does so at the first two.

The loop is closed: each connection sends its next request when the answer to the last has ended.
An answer counts when its status is 200, its framing ended, and (streams) it held exactly as many
``data:`` lines as expected; anything else is an error. Delay of a chunk is the time between the
stamp that the simulated provider put in and the read that brought it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import resource
import sys
import time
from typing import Any, cast

import httptools
import uvloop

from benchmarks.job import SAMPLES_MAX, Job, Tally, quantiles

STAMP = re.compile(rb" sim:(\d{19})")
HOLD_TIMEOUT_S = 10.0
"""For the first chunks of held streams: a proxy may not be able to hold so many."""


class Client(asyncio.Protocol):
    """One connection: send, read to the end, check, again."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._transport: asyncio.Transport | None = None
        self.busy = False
        self.seen_first = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self) -> None:
        """Start the next request."""
        if self._transport is None or self._transport.is_closing():
            self._run.tally.fault("connection closed")
            self._run.ended(self)
            return
        self.busy, self.seen_first = True, False
        self._events, self._status, self._tail = 0, 0, b""
        self._parser = httptools.HttpResponseParser(self)
        self._sent_ns = time.monotonic_ns()
        self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        if not self.busy:
            self._run.tally.fault("bytes after the end")
            return
        if not self.seen_first:
            self.seen_first = True
            self._run.first_byte((now_ns - self._sent_ns) / 1000)
        if self._run.events:
            for stamp in STAMP.findall(data):
                self._run.delay((now_ns - int(stamp)) / 1000)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._run.tally.fault(f"not HTTP: {error}")
            self._end()

    def on_body(self, body: bytes) -> None:
        if not self._run.events:
            return
        # A marker can be torn over two reads, so the last bytes are looked at again.
        text = self._tail + body
        count = text.count(b"data: ")
        self._events += count
        self._run.chunks(count)
        self._tail = text[-5:]

    def on_message_complete(self) -> None:
        self._status = self._parser.get_status_code()
        run = self._run
        if self._status != 200:
            run.tally.fault(f"status {self._status}")
        elif run.events and self._events != run.events:
            run.tally.fault(f"{self._events} events instead of {run.events}")
        else:
            run.done((time.monotonic_ns() - self._sent_ns) / 1000)
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.busy:
            self._run.tally.fault("connection lost in an answer")
            self._end()

    def _end(self) -> None:
        self.busy = False
        self._run.ended(self)

    def close(self) -> None:
        """Hang up."""
        self.busy = False
        if self._transport is not None:
            self._transport.abort()


class Run:
    """All connections of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.tally = Tally()
        self._measuring = False
        self._clients: list[Client] = []
        self._again = True
        self._active = 0
        self._all_ended = asyncio.Event()
        self._first_all = asyncio.Event()
        self.events = 0
        self._use(job.warm_body or job.body, job.warm_events or job.events)

    def _use(self, body: str, events: int) -> None:
        data = body.encode()
        lines = [f"POST {self._job.path} HTTP/1.1", "host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self._job.headers.items()]
        lines += ["content-type: application/json", f"content-length: {len(data)}", "", ""]
        self.request = "\r\n".join(lines).encode() + data
        self.events = events

    # Clients call these.

    def first_byte(self, us: float) -> None:
        if self._measuring:
            self.tally.first_byte_us.append(us)
            if len(self.tally.first_byte_us) >= len(self._clients):
                self._first_all.set()

    def delay(self, us: float) -> None:
        if self._measuring and len(self.tally.delay_us) < SAMPLES_MAX:
            self.tally.delay_us.append(us)

    def chunks(self, count: int) -> None:
        if self._measuring:
            self.tally.chunks += count

    def done(self, us: float) -> None:
        if self._measuring:
            self.tally.requests += 1
            if len(self.tally.latency_us) < SAMPLES_MAX:
                self.tally.latency_us.append(us)

    def ended(self, client: Client) -> None:
        if self._again and client._transport is not None:
            client.send()
            return
        self._active -= 1
        if self._active <= 0:
            self._all_ended.set()

    # The job.

    async def go(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        for _ in range(self._job.connections):
            _, client = await loop.create_connection(
                lambda: Client(self), "127.0.0.1", self._job.port
            )
            self._clients.append(client)
        if self._job.warm_s:
            await self._phase(self._job.warm_s)
        self._use(self._job.body, self._job.events)
        if self._job.hold:
            return await self._hold()
        gc.collect()
        gc.freeze()
        self._measuring = True
        cpu_s, began_s = _cpu_s(), time.monotonic()
        emit({"event": "start"})
        await self._phase(self._job.measure_s)
        took_s, cpu_s = time.monotonic() - began_s, _cpu_s() - cpu_s
        for client in self._clients:
            client.close()
        return self._result(took_s, cpu_s)

    async def _phase(self, measure_s: float) -> None:
        """Everyone starts; after `measure_s` nobody starts again; wait until all have ended."""
        self._again, self._active = measure_s > 0, len(self._clients)
        self._all_ended.clear()
        for client in self._clients:
            client.send()
        if measure_s:
            await asyncio.sleep(measure_s)
            self._again = False
        measuring, self._measuring = self._measuring, self._measuring and not measure_s
        await self._all_ended.wait()
        if measuring:
            self._measuring = False
            emit({"event": "stop"})

    async def _hold(self) -> dict[str, Any]:
        self._again, self._measuring = False, True
        for client in self._clients:
            client.send()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._first_all.wait(), HOLD_TIMEOUT_S)
        emit({"event": "start"})
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        alive = sum(client.busy and client.seen_first for client in self._clients)
        for client in self._clients:
            client.close()
        emit({"event": "stop"})
        return {"held": alive, "errors": self.tally.errors, "faults": self.tally.faults}

    def _result(self, took_s: float, cpu_s: float) -> dict[str, Any]:
        tally = self.tally
        return {
            "requests": tally.requests,
            "chunks": tally.chunks,
            "errors": tally.errors,
            "faults": tally.faults,
            "took_s": took_s,
            "loadgen_core": cpu_s / took_s,
            "latency_us": quantiles(tally.latency_us),
            "first_byte_us": quantiles(tally.first_byte_us),
            "delay_us": quantiles(tally.delay_us),
        }


def emit(line: dict[str, Any]) -> None:
    """One JSON line to whoever started us."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Read a job, do it, say what came out."""
    job = Job(**json.loads(sys.stdin.readline()))

    async def go() -> dict[str, Any]:
        return await Run(job).go()

    emit(uvloop.run(go()))


if __name__ == "__main__":
    main()
