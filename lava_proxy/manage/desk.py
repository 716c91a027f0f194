"""What every handler needs: books, provider table, payments, and a fair share of the database:
management calls use at most half of the pool at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lava_adapters.models import Models
from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.books.share import Share
from lava_proxy.core.errors import LavaError
from lava_proxy.manage.call import Call
from lava_proxy.manage.catalogue import Catalogue
from lava_proxy.manage.fields import refuse
from lava_proxy.manage.pace import Pace
from lava_proxy.payments.seam import Payments
from lava_proxy.rules.settlement import Customer, Meter


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that may be named here: how, whose it is, and what it is called there."""

    id: str
    provider: str
    model: str


class Desk(Share):
    """One per process."""

    def __init__(self, books: Books, registry: Registry, payments: Payments) -> None:
        super().__init__(books.database, books.settings.database_pool_size // 2)
        self.books = books
        self.registry = registry
        self.payments = payments
        self.pace = Pace(books.clock, books.settings.manage_rate_per_minute)
        self.catalogue = Catalogue(registry, books.settings.provider_keys)
        self.models = Models(registry)
        self.waiting = 0
        """Questions that wait for what another process tells: see `manage/open_requests.py`."""
        self.listed_models: Sequence[ListedModel] | None = None
        """The list of models, once somebody has asked for it."""

    def payable(self, amounts: Iterable[tuple[str, int | None]]) -> None:
        """422 for an amount, by its path, that the payment provider can never charge."""
        for path, amount_e10 in amounts:
            why = None if amount_e10 is None else self.payments.refusal(amount_e10)
            if why is not None:
                refuse(path, why)

    async def customer(self, call: Call, name: str) -> Customer:
        """The caller's customer by id or reference, or 404."""
        customer = await self.books.directory.customer(call.merchant_id, name)
        if customer is None:
            raise no_such("customer")
        return customer

    async def meter(self, call: Call, name: str) -> Meter:
        """The caller's meter by slug or id, or 404."""
        meter = await self.books.directory.meter(call.merchant_id, name)
        if meter is None:
            raise no_such("meter")
        return meter


def no_such(what: str) -> LavaError:
    """The one answer to absent and not yours."""
    return LavaError("not_found", f"there is no such {what}")
