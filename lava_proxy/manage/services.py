"""``/v1/services``: what can be called through this gateway, for everybody."""

from __future__ import annotations

from lava_proxy.manage.call import Answer, Call, Route
from lava_proxy.manage.catalogue import Part, ServiceProvider, Services, listing
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import read_query

PARAMETERS = frozenset({"provider"})


async def page(desk: Desk, call: Call) -> Answer:
    """Everything that can be called, or one provider's part of it. An unknown provider is 404."""
    name = read_query(call, PARAMETERS).get("provider")
    if name is None:
        return Answer(200, await desk.catalogue.whole(desk.books.now()))
    return Answer(200, listing([await _part(desk, name)]))


async def provider(desk: Desk, call: Call) -> Answer:
    """A provider in short."""
    return Answer(200, (await _part(desk, call.params[0])).summary)


async def _part(desk: Desk, provider_id: str) -> Part:
    part = await desk.catalogue.part(provider_id, desk.books.now())
    if part is None:
        raise no_such("provider")
    return part


ROUTES = (
    Route(
        "GET",
        "services",
        page,
        answer=Services,
        query=PARAMETERS,
        errors=("not_found",),
        auth="none",
    ),
    Route("GET", "services/providers/*", provider, answer=ServiceProvider, auth="none"),
)
