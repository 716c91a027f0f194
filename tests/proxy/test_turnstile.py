"""Calls that begin let running streams go first, and nobody waits for ever."""

from __future__ import annotations

import asyncio

from lava_proxy.proxy.turnstile import STARTS_LEAST, Turnstile


async def _turns() -> list[int]:
    """Counts turns of the event loop for as long as the test runs."""
    seen = [0]

    def turn() -> None:
        seen[0] += 1
        asyncio.get_running_loop().call_soon(turn)

    turn()
    return seen


async def test_a_crowd_is_let_in_over_many_turns() -> None:
    turnstile = Turnstile(asyncio.get_running_loop())
    turns = await _turns()
    entered: list[int] = []
    order: list[int] = []

    async def call(number: int) -> None:
        await turnstile.enter()
        entered.append(turns[0])
        order.append(number)

    await asyncio.gather(*[call(number) for number in range(20 * STARTS_LEAST)])
    assert order == sorted(order)
    assert len(set(entered)) >= 10  # not all in one turn
    assert max(entered.count(turn) for turn in set(entered)) < 10 * STARTS_LEAST


async def test_alone_nobody_waits() -> None:
    turnstile = Turnstile(asyncio.get_running_loop())
    for _ in range(3):
        entering = turnstile.enter()
        try:
            entering.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("it waited")
        await asyncio.sleep(0.01)


async def test_long_turns_let_in_more() -> None:
    """In a loop that is busy with streams calls get their share."""
    loop = asyncio.get_running_loop()
    turnstile = Turnstile(loop)
    waiting = [asyncio.ensure_future(turnstile.enter()) for _ in range(100)]
    await asyncio.sleep(0)
    turnstile._turned_s = loop.time() - 0.05  # a turn of 50 ms
    turnstile._turn()
    await asyncio.sleep(0)
    assert 50 <= sum(call.done() for call in waiting) < 100
    await asyncio.gather(*waiting)


async def test_one_who_leaves_takes_no_place() -> None:
    turnstile = Turnstile(asyncio.get_running_loop())
    first = [asyncio.ensure_future(turnstile.enter()) for _ in range(STARTS_LEAST)]
    leaving = [asyncio.ensure_future(turnstile.enter()) for _ in range(5)]
    last = asyncio.ensure_future(turnstile.enter())
    await asyncio.sleep(0)
    for call in leaving:
        call.cancel()
    await asyncio.wait_for(last, 1)
    await asyncio.gather(*first)
    assert all(call.cancelled() for call in leaving)
