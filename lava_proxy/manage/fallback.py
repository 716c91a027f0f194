"""``/v1/account/fallback``: where the merchant's rewritten calls go when their target fails."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.core.providers import named_hosts
from lava_proxy.manage.call import Answer, Call, Route, Success, answer
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.fields import Body, Name, read_fields, refuse
from lava_proxy.store import fallback as store
from lava_proxy.wire.target import check_path, parse_written

CHAIN_MAX = 5
URL_MAX_CHARS = 2048


class NewStep(Body):
    """One target: `url` with or without its ``https://``."""

    url: Annotated[str, Field(min_length=1, max_length=URL_MAX_CHARS)]
    model: Name


class NewChain(Body):
    """The whole chain, in the order in which it is tried; null takes it away."""

    fallback_chain: Annotated[list[NewStep], Field(max_length=CHAIN_MAX)] | None


class StepView(TypedDict):
    """One target."""

    url: str
    model: str


class ChainView(TypedDict):
    """The chain as the API shows it; empty where there is none."""

    fallback_chain: list[StepView]


async def show(desk: Desk, call: Call) -> Answer:
    """The chain in force."""
    async with desk.reading() as conn:
        chain = await store.find(conn, call.merchant_id)
    return answer(ChainView(fallback_chain=[StepView(url=u, model=m) for u, m in chain]))


async def update(desk: Desk, call: Call) -> Answer:
    """Replace the chain."""
    body = read_fields(NewChain, call)
    steps = body.fallback_chain or []
    for number, step in enumerate(steps):
        _check(desk, step.url, f"fallback_chain[{number}].url")
    async with desk.writing() as conn:
        await store.replace(conn, call.merchant_id, tuple((s.url, s.model) for s in steps))
    desk.books.directory.changed("merchants", call.merchant_id)
    return answer(Success(success=True))


def _check(desk: Desk, url: str, path: str) -> None:
    """The URL must be one that POST can be forwarded to."""
    hosts = named_hosts(desk.registry, desk.books.settings)
    try:
        target = parse_written(url, plain_hosts=hosts)
        place = desk.registry.at(target.host, target.port)
        provider = place[1] if place else None
        if provider is not None:
            check_path(target.path, encoded_slash=provider.encoded_slash)
    except LavaError as error:
        refuse(path, error.message)
    if provider is None or provider.route("POST", target.path) is None:
        refuse(path, "is not an endpoint of the provider table")


ROUTES = (
    Route("GET", "account/fallback", show, answer=ChainView),
    Route("PATCH", "account/fallback", update, answer=Success, body=NewChain),
)
