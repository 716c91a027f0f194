"""Who calls, and who pays: from a credential to merchant, customer and meter. No I/O when warm."""

from __future__ import annotations

from dataclasses import replace

from lava_adapters.values import dataclass
from lava_proxy.books.directory import Directory, Scoped
from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import hash_secret
from lava_proxy.rules.limits import SpendKey, TokenLimit
from lava_proxy.rules.settlement import Customer, Merchant, Meter
from lava_proxy.wire.token import Credential, Token, decode_token, invalid_token

TOKENS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """The parties of a call."""

    merchant: Merchant
    test: bool
    customer: Customer | None
    meter: Meter | None
    token: Token
    spend_key: SpendKey | None = None
    token_limit: TokenLimit | None = None

    @property
    def owner_id(self) -> str:
        """Whose tiers advance: the customer's, else the merchant's own."""
        return self.customer.customer_id if self.customer else self.merchant.merchant_id


_Meaning = tuple[Token, TokenLimit | None]


class _Known:
    """A credential that was decoded, and what came of it last."""

    __slots__ = ("_caller", "_found", "_meaning", "key_hash", "token")

    def __init__(self, token: Token) -> None:
        self.token = token
        self.key_hash = hash_secret(token.secret)
        self._found: Scoped | None = None
        self._meaning: _Meaning = (token, None)
        self._caller: Caller | None = None

    def meaning(self, found: Scoped | None = None) -> _Meaning:
        """What it says; what an opaque one stands for is not in it, but was `found`."""
        if found is not None and found is not self._found:
            self._found = found
            self._meaning = (_says(self.token, found), _limit(found))
        return self._meaning

    def who(
        self,
        merchant: Merchant,
        test: bool,
        customer: Customer | None,
        meter: Meter | None,
        meaning: _Meaning,
    ) -> Caller:
        """The parties; where they are the very ones that called last, that `Caller`."""
        last, (token, limit) = self._caller, meaning
        if (
            last is None
            or last.token is not token
            or last.merchant is not merchant
            or last.customer is not customer
            or last.meter is not meter
            or last.test is not test
        ):
            last = Caller(merchant, test, customer, meter, token, token_limit=limit)
            self._caller = last
        return last


def _says(token: Token, found: Scoped) -> Token:
    return replace(
        token,
        customer_id=found.customer_id,
        meter_slug=found.meter_id,
        disable_billing=found.disable_billing,
    )


def _limit(found: Scoped) -> TokenLimit | None:
    if found.spend_limit_e10 is None or found.spend_cycle is None:
        return None
    return TokenLimit(
        found.forward_token_id,
        found.merchant.merchant_id,
        found.spend_limit_e10,
        found.spend_cycle,
    )


class Callers:
    """Resolves credentials; decoded tokens are kept by their full text."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._tokens: dict[str, _Known] = {}

    async def resolve(self, credential: Credential) -> Caller:
        """Raises 401 for a key that nobody holds, 403 for a customer or meter not its own."""
        known = self._tokens.get(credential.text)
        if known is None:
            known = _Known(decode_token(credential.text))
            if len(self._tokens) >= TOKENS_KEPT:
                self._tokens.clear()
            self._tokens[credential.text] = known
        kind = known.token.kind
        if kind == "opaque":
            return await self._scoped(known)
        if kind == "spend_key":
            return await self._spender(known)
        if kind != "secret_key":
            raise invalid_token()
        principal = await self._directory.principal(known.key_hash)
        if principal is None:
            raise invalid_token()
        return await self._caller(principal.merchant, principal.test, known, known.meaning())

    async def _scoped(self, known: _Known) -> Caller:
        """Whom a forward token stands for. Its time runs out while it lies in memory, so that is
        looked at in every call."""
        found = await self._directory.scoped(known.key_hash)
        if found is None or (
            found.expires_at is not None and found.expires_at <= self._clock.now()
        ):
            raise invalid_token()
        return await self._caller(found.merchant, found.test, known, known.meaning(found))

    async def _caller(
        self, merchant: Merchant, test: bool, known: _Known, meaning: _Meaning
    ) -> Caller:
        token = meaning[0]
        customer = meter = None
        if token.customer_id is not None:
            customer = await self._directory.customer(merchant.merchant_id, token.customer_id)
        if token.meter_slug is not None:
            meter = await self._directory.meter(merchant.merchant_id, token.meter_slug)
        if (token.customer_id and not customer) or (token.meter_slug and not meter):
            raise LavaError(
                "forbidden", "the customer or the meter that the token names is not known"
            )
        return known.who(merchant, test, customer, meter, meaning)

    async def _spender(self, known: _Known) -> Caller:
        key = await self._directory.spend_key(known.key_hash)
        if key is None:
            raise invalid_token()
        return Caller(key.merchant, False, None, None, known.token, key)
