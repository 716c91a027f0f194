"""Reading a stream as a user would, with the money beside it as it changes.

While it runs, cost and remaining credit are our own sum: tokens seen x the meter's price, the
prompt guessed until the provider states it. The line of the books is what the gateway answers when
it is asked for the balance, twice a second: credit leaves it when a call is booked, at its end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lava_proxy.cli.demo_asks import Ask
from lava_proxy.cli.demo_calls import Merchant
from lava_proxy.cli.demo_client import Client, Json
from lava_proxy.cli.demo_screen import Screen, Sight, Watch

BALANCE_EVERY_S = 0.5


@dataclass(slots=True)
class Seen:
    """A stream as its reader got it."""

    status: int
    request_id: str
    pieces: int = 0
    """Events that carried text: with our simulated provider, tokens."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Payer:
    """Who pays for a stream, and how much for a token."""

    customer_id: str
    token: str
    price_e10: int


async def watch(screen: Screen, client: Client, merchant: Merchant, payer: Payer, ask: Ask) -> Seen:
    """Ask, and show the answer as it comes."""
    before = await merchant.balance(payer.customer_id)
    stream = await client.stream(ask.url, payer.token, ask.headers, ask.body)
    seen = Seen(stream.status, stream.request_id)
    sight = Sight(
        left_e10=before.total_e10, available_e10=before.available_e10, leased_e10=before.leased_e10
    )
    with screen.watch(sight) as view:
        looking = asyncio.create_task(_look(merchant, payer.customer_id, sight, view))
        try:
            async for event in stream.events():
                _take(ask, event, seen, sight)
                tokens = (seen.input_tokens or ask.prompt_tokens) + sight.tokens
                sight.cost_e10 = tokens * payer.price_e10
                sight.left_e10 = before.total_e10 - sight.cost_e10
                view.changed()
        finally:
            looking.cancel()
    seen.whole = stream.whole
    return seen


def _take(ask: Ask, event: Json, seen: Seen, sight: Sight) -> None:
    heard = ask.hear(event)
    if heard.text:
        seen.pieces += 1
        sight.tokens += 1
        sight.text += heard.text
    if heard.input_tokens is not None:
        seen.input_tokens = heard.input_tokens
    if heard.output_tokens is not None:
        seen.output_tokens = heard.output_tokens
    if heard.error is not None:
        seen.error = heard.error


async def _look(merchant: Merchant, customer_id: str, sight: Sight, view: Watch) -> None:
    while True:
        balance = await merchant.balance(customer_id)
        sight.available_e10 = balance.available_e10
        sight.leased_e10 = balance.leased_e10
        view.changed()
        await asyncio.sleep(BALANCE_EVERY_S)
