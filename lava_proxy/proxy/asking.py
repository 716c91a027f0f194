"""Asking for usage, and servers that do not know the question.

Streams of some providers state usage only when ``stream_options`` asks for it. An old server
refuses such a request with 400 or 422 that names the member: it is sent once more without, before
anything has reached the client, within the same hold and row. Where that works the server is not
asked again for a while, and its streams are counted by ourselves.

A request that fails in either form says nothing about the server: else any caller's broken request
could end the asking for all.
"""

from __future__ import annotations

from lava_proxy.net.http1.request import Headers
from lava_proxy.net.upstream import Answer, UpstreamEnded
from lava_proxy.proxy import outbound
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.run import Run

REFUSALS = frozenset({400, 422})
MEMBER = b"stream_options"
ERROR_BYTES_MAX = 16 * 1024
"""An error that is longer is not searched for the member's name."""


async def again(
    gateway: Gateway, run: Run, method: str, headers: Headers, answer: Answer
) -> Answer:
    """`answer`, or the one to the same request without the question."""
    unasked, run.unasked = run.unasked, None
    if unasked is None or answer.status not in REFUSALS:
        return answer
    run.answer = answer  # closed with the call, should it end here
    if run.adapter is None or run.ask is None or not await _names_it(answer):
        return answer
    answer.close()
    original, cap = unasked
    body = run.adapter.edit(run.ask, original, usage=False, output_cap=cap)
    run.asked_usage = False
    answer = await gateway.upstreams.send(method, outbound.url(gateway, run), headers, body)
    if answer.status < min(REFUSALS):
        gateway.unasked_servers.note(outbound.server(run), gateway.books.clock.boot_s())
    return answer


async def _names_it(answer: Answer) -> bool:
    """Whether an error's body names the member. It is put back, to be passed on."""
    read, size = [], 0
    try:
        while size <= ERROR_BYTES_MAX and (piece := await answer.read()):
            read.append(piece)
            size += len(piece)
    except UpstreamEnded:
        pass  # the relay meets it again
    body = b"".join(read)
    if body:
        answer.pieces.insert(0, body)
    return size <= ERROR_BYTES_MAX and MEMBER in body
