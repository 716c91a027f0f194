"""Who calls, and who pays: from a credential to merchant, customer and meter. No I/O when warm."""

from __future__ import annotations

from dataclasses import replace

from lava_adapters.values import dataclass
from lava_proxy.books.directory import Directory
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


class Callers:
    """Resolves credentials; decoded tokens are kept by their full text."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._tokens: dict[str, tuple[Token, bytes]] = {}

    async def resolve(self, credential: Credential) -> Caller:
        """Raises 401 for a key that nobody holds, 403 for a customer or meter not its own."""
        known = self._tokens.get(credential.text)
        if known is None:
            token = decode_token(credential.text)
            known = (token, hash_secret(token.secret))
            if len(self._tokens) >= TOKENS_KEPT:
                self._tokens.clear()
            self._tokens[credential.text] = known
        token, key_hash = known
        if token.kind == "opaque":
            return await self._scoped(token, key_hash)
        if token.kind == "spend_key":
            return await self._spender(token, key_hash)
        if token.kind != "secret_key":
            raise invalid_token()
        principal = await self._directory.principal(key_hash)
        if principal is None:
            raise invalid_token()
        return await self._caller(principal.merchant, principal.test, token)

    async def _scoped(self, token: Token, token_hash: bytes) -> Caller:
        """Whom a forward token stands for. Its time runs out while it lies in memory, so that is
        looked at in every call."""
        found = await self._directory.scoped(token_hash)
        if found is None or (
            found.expires_at is not None and found.expires_at <= self._clock.now()
        ):
            raise invalid_token()
        says = replace(
            token,
            customer_id=found.customer_id,
            meter_slug=found.meter_id,
            disable_billing=found.disable_billing,
        )
        caller = await self._caller(found.merchant, found.test, says)
        if found.spend_limit_e10 is None or found.spend_cycle is None:
            return caller
        limit = TokenLimit(
            found.forward_token_id,
            found.merchant.merchant_id,
            found.spend_limit_e10,
            found.spend_cycle,
        )
        return replace(caller, token_limit=limit)

    async def _caller(self, merchant: Merchant, test: bool, token: Token) -> Caller:
        customer = meter = None
        if token.customer_id is not None:
            customer = await self._directory.customer(merchant.merchant_id, token.customer_id)
        if token.meter_slug is not None:
            meter = await self._directory.meter(merchant.merchant_id, token.meter_slug)
        if (token.customer_id and not customer) or (token.meter_slug and not meter):
            raise LavaError(
                "forbidden", "the customer or the meter that the token names is not known"
            )
        return Caller(merchant, test, customer, meter, token)

    async def _spender(self, token: Token, key_hash: bytes) -> Caller:
        key = await self._directory.spend_key(key_hash)
        if key is None:
            raise invalid_token()
        return Caller(key.merchant, False, None, None, token, key)
