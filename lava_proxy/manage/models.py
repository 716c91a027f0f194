"""``/v1/models``: what may be named at `/v1/chat/completions` and `/v1/messages`.

Listed is what has a known price, bundled or set, at a provider that we have a key for. More may be
called than is listed: a model that is newer than the price list, or ``provider/model`` of any
provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Literal

from typing_extensions import TypedDict

from lava_adapters.models import Models
from lava_adapters.provider import Provider
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import hash_secret
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk, ListedModel
from lava_proxy.rules.key_use import model_refusal, refusal
from lava_proxy.rules.limits import SpendKey
from lava_proxy.rules.pricelist import listed
from lava_proxy.wire.token import CREDENTIAL_HEADERS, decode_token, find_credential, invalid_token


class ModelView(TypedDict):
    """A model as OpenAI's API shows it. `created` is when our table was checked: nobody says when
    a model was made."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelListView(TypedDict):
    """All of them; there are no pages."""

    object: Literal["list"]
    data: list[ModelView]


async def page(desk: Desk, call: Call) -> Answer:
    """Models that may be called by name; with a spend key, those that it may use."""
    key = await _spend_key(desk, call)
    if desk.listed_models is None:  # the same for the life of the process
        desk.listed_models = await asyncio.to_thread(_listed, desk)  # some 50 ms of work
    known = _with_overrides(desk, key, desk.listed_models)
    shown = known if key is None else _of_key(desk, key, known)
    made_s = desk.models.checked_s
    data: list[ModelView] = [
        {"id": one.id, "object": "model", "created": made_s, "owned_by": one.provider}
        for one in shown
    ]
    return answer(ModelListView(object="list", data=data))


async def _spend_key(desk: Desk, call: Call) -> SpendKey | None:
    """The spend key of a caller who shows one; whoever else asks, the list is the same."""
    if not any(name in CREDENTIAL_HEADERS for name, _ in call.headers):
        return None
    token = decode_token(find_credential(call.headers, None).text)
    if token.kind != "spend_key":
        return None
    key = await desk.books.directory.spend_key(hash_secret(token.secret))
    if key is None:
        raise invalid_token()
    code = refusal(key, None, desk.books.now())
    if code is not None:
        raise LavaError(code)
    return key


def _with_overrides(
    desk: Desk, key: SpendKey | None, bundled: Sequence[ListedModel]
) -> Sequence[ListedModel]:
    """The list with models that only the operator has a price for, or the key's merchant."""
    prices = desk.books.prices.of(key.merchant.merchant_id if key else "")
    there = {one.id for one in bundled}
    more = {
        one
        for provider_id, model in prices.named()
        if provider_id in desk.books.settings.provider_keys
        and (provider := desk.registry.by_id(provider_id)) is not None
        for one in _of(desk.models, provider, model)
        if one.id not in there
    }
    return sorted([*bundled, *more], key=lambda one: one.id) if more else bundled


def _of_key(desk: Desk, key: SpendKey, known: Sequence[ListedModel]) -> Sequence[ListedModel]:
    """What a key may use: of the list, and what its own list names beyond that (dated names)."""
    named = [_as_listed(desk, name) for name in sorted(key.allowed_models or ())]
    there = {(one.provider, one.model) for one in known}
    more = [one for one in named if one and (one.provider, one.model) not in there]
    return [one for one in (*known, *more) if model_refusal(key, one.model, one.provider) is None]


def _as_listed(desk: Desk, name: str) -> ListedModel | None:
    served = desk.models.served(name, "chat") or desk.models.served(name, "messages")
    if served is None or served.provider.id not in desk.books.settings.provider_keys:
        return None
    return ListedModel(name, served.provider.id, served.model)


def _listed(desk: Desk) -> Sequence[ListedModel]:
    keys, at = desk.books.settings.provider_keys, desk.books.now()
    found = [
        one
        for provider in desk.registry.providers
        if provider.id in keys and provider.prices
        for model in listed(provider.prices, at)
        for one in _of(desk.models, provider, model)
    ]
    return sorted(found, key=lambda one: one.id)


def _of(models: Models, provider: Provider, name: str) -> Iterator[ListedModel]:
    """A model of a provider's, if it is one to be named: the price list also knows those that make
    no text, and those that another provider serves under that name."""
    owner = models.owner(name)
    strange = owner is None and models.has(provider.id) and "/" not in name
    if owner not in (None, provider.id) or strange or not models.makes_text(name):
        return
    as_named = name if owner else f"{provider.id}/{name}"
    if models.served(as_named, "chat") or models.served(as_named, "messages"):
        yield ListedModel(as_named, provider.id, name)


ROUTES = (
    Route(
        "GET",
        "models",
        page,
        answer=ModelListView,
        errors=("invalid_token", "key_paused", "key_expired"),
        auth="none",
    ),
)
