"""The demo's story: credit comes in, a stream is metered, the next one cut off, the third refused.

Every sentence that it prints with a mark was checked first, against the books or against what the
provider itself did. The first one that does not hold ends the story.
"""

from __future__ import annotations

from collections.abc import Sequence

from lava_proxy.cli import tools
from lava_proxy.cli.demo_asks import anthropic, control_word, openai
from lava_proxy.cli.demo_calls import Merchant, StepFailed
from lava_proxy.cli.demo_client import Client, Json
from lava_proxy.cli.demo_screen import Screen, usd
from lava_proxy.cli.demo_watch import Payer, watch
from lava_proxy.core.money import parse_e10
from lava_proxy.core.settings import Settings
from lava_proxy.net.simulated import SimRequest, SimulatedProvider

CREDIT = "0.03"
RATE = "100"
"""USD per million tokens: dear, so that cents end within seconds."""
PRICE_E10 = parse_e10(RATE) // 10**6
"""Per token."""
TOP_UP = "1.00"

FIRST_TOKENS = 120
SECOND_TOKENS = 600
"""More than there will be money for."""
PACE_MS = 25

HUNG_UP_WITHIN_S = 2.0


class Story:
    """One customer's story on a running gateway."""

    def __init__(
        self, screen: Screen, client: Client, provider: SimulatedProvider, settings: Settings
    ) -> None:
        self._screen = screen
        self._client = client
        self._merchant = Merchant(client)
        self._provider = provider
        self._settings = settings

    async def tell(self) -> Payer:
        """All of it, in order; who paid. Raises `StepFailed`."""
        payer = await self._seed()
        await self._metered(payer)
        await self._cut_off(payer)
        await self._refused(payer)
        await self._ledger(payer)
        await self._audit()
        return payer

    async def top_up(self, payer: Payer) -> None:
        """Fresh credit for what people try themselves."""
        await self._merchant.grant(payer.customer_id, TOP_UP)

    async def _seed(self) -> Payer:
        """A meter, a customer, and credit."""
        self._screen.heading("A meter, a customer, and a few cents")
        slug = await self._merchant.create_meter("Demo chat", RATE)
        customer_id = await self._merchant.create_customer("Ada Lovelace")
        await self._merchant.grant(customer_id, CREDIT)
        payer = Payer(customer_id, self._client.forward_token(customer_id, slug), PRICE_E10)
        left_e10 = await self._left_e10(payer)
        self._check(
            left_e10 == parse_e10(CREDIT),
            f"the meter {slug} charges {usd(PRICE_E10)} USD a token"
            f" (high, so that cents end soon); {customer_id} has {usd(left_e10)} USD",
        )
        return payer

    async def _metered(self, payer: Payer) -> None:
        """A stream that fits is charged by the provider's own counts."""
        control = control_word(FIRST_TOKENS, PACE_MS)
        ask = anthropic("Count for me, please, as far as you like.", control)
        self._screen.heading(f"A stream from {ask.model}")
        self._screen.note("(USD, live: tokens seen x price; books: the gateway's balance, polled)")
        before_e10 = await self._left_e10(payer)
        seen = await watch(self._screen, self._client, self._merchant, payer, ask)
        self._check(
            seen.status == 200 and seen.whole and seen.pieces == FIRST_TOKENS,
            f"it came whole: status {seen.status}, {seen.pieces} of {FIRST_TOKENS} tokens",
        )
        booked = await self._merchant.booked(seen.request_id)
        charge_e10 = parse_e10(booked["charge"]["amount"])
        given, made = seen.input_tokens or 0, seen.output_tokens or 0
        self._check(
            (booked["outcome"], booked["usage_source"]) == ("completed", "provider")
            and charge_e10 == (given + made) * PRICE_E10,
            f"charged by the provider's count, to the last digit: {given} + {made} tokens"
            f" x {usd(PRICE_E10)} = {usd(charge_e10)} USD",
        )
        left_e10 = await self._left_e10(payer)
        self._check(
            left_e10 == before_e10 - charge_e10,
            f"credit by the books: {usd(left_e10)} USD"
            f" (to the provider this call costs {usd(parse_e10(booked['cost']))} USD)",
        )

    async def _cut_off(self, payer: Payer) -> None:
        """A stream that costs more than there is ends when the money does."""
        ask = openai("Now once more, and do not stop.", control_word(SECOND_TOKENS, PACE_MS))
        self._screen.heading(f"A longer one from {ask.model}: the money ends in the middle")
        before_e10 = await self._left_e10(payer)
        seen = await watch(self._screen, self._client, self._merchant, payer, ask)
        self._check(
            seen.error == "budget_exhausted" and not seen.whole,
            f"after {seen.pieces} of {SECOND_TOKENS} tokens: error event {seen.error},"
            f" connection ended {'as if whole' if seen.whole else 'without its proper end'}",
        )
        request = await self._hung_up()
        self._check(
            seen.pieces <= request.tokens_sent < SECOND_TOKENS,
            f"the provider was hung up on after {request.tokens_sent} tokens",
        )
        booked = await self._merchant.booked(seen.request_id)
        charge_e10 = parse_e10(booked["charge"]["amount"])
        given, made = (booked["model_usage"][f"{way}_tokens"] for way in ("input", "output"))
        self._check(
            booked["outcome"] == "cut_off"
            and made == seen.pieces
            and charge_e10 == (given + made) * PRICE_E10,
            f"charged for what was delivered, by our own count: {given} + {made} tokens"
            f" x {usd(PRICE_E10)} = {usd(charge_e10)} USD",
        )
        left_e10 = await self._left_e10(payer)
        self._check(
            0 <= left_e10 < PRICE_E10 and left_e10 == before_e10 - charge_e10,
            f"never overspent: {usd(left_e10)} USD left, which buys no token",
        )

    async def _refused(self, payer: Payer) -> None:
        """The next call is refused before the provider hears of it."""
        self._screen.heading("The next one is refused")
        calls, before_e10 = self._provider.requests_total, await self._left_e10(payer)
        ask = openai("Go on.", control_word(FIRST_TOKENS, PACE_MS))
        stream = await self._client.stream(ask.url, payer.token, ask.headers, ask.body)
        error = (await stream.document()).get("error", {})
        details = error.get("details", {})
        required_e10, available_e10 = (
            parse_e10(details.get(name, "0")) for name in ("required", "available")
        )
        self._check(
            (stream.status, error.get("code")) == (402, "insufficient_credit")
            and required_e10 > available_e10,
            f"status {stream.status}, {error.get('code')}: {usd(required_e10)} USD required,"
            f" {usd(available_e10)} available",
        )
        self._check(
            self._provider.requests_total == calls and await self._left_e10(payer) == before_e10,
            "the provider never heard of it, and nothing was charged",
        )

    async def _ledger(self, payer: Payer) -> None:
        """Every movement of this customer's money."""
        self._screen.heading("The ledger")
        rows = await self._merchant.ledger(payer.customer_id)
        self._screen.ledger(rows)
        sums_e10 = _sums_e10(rows)
        self._check(
            len(sums_e10) == 3 and not any(sums_e10),
            f"{len(sums_e10)} transactions (the credit and two calls), each sums to zero",
        )

    async def _audit(self) -> None:
        """The whole books, from the beginning."""
        found = await tools.audit_books(self._settings)
        self._check(
            found.sound,
            f"the books add up: granted {usd(found.granted_e10)} = available"
            f" {usd(found.available_e10)} + leased {usd(found.leased_e10)} + spent"
            f" {usd(found.spent_e10)} + expired {usd(found.expired_e10)}",
        )

    async def _hung_up(self) -> SimRequest:
        """The provider's view of the last call, once it is over there."""
        request = self._provider.requests[-1]
        try:
            await self._provider.until(lambda: request.ended, HUNG_UP_WITHIN_S)
        except TimeoutError:
            raise StepFailed("the provider still sends, though the stream was cut") from None
        return request

    async def _left_e10(self, payer: Payer) -> int:
        return (await self._merchant.balance(payer.customer_id)).total_e10

    def _check(self, holds: bool, sentence: str) -> None:
        if not holds:
            raise StepFailed(f"this does not hold: {sentence}")
        self._screen.fact(sentence)


def _sums_e10(rows: Sequence[Json]) -> list[int]:
    """The sum of each transaction."""
    sums_e10: dict[str, int] = {}
    for row in rows:
        at = str(row["transaction_id"])
        sums_e10[at] = sums_e10.get(at, 0) + parse_e10(row["amount"])
    return list(sums_e10.values())
