"""The next target of a rewritten call whose provider failed: 5xx, 429, no connection, no answer.

Each attempt is a call of its own, with a request id, a hold and a row. The next one is made ready
before the failed one is let go, without await: where none can be made, the failure is the answer.
A target that cannot serve this call (no key for it, a request that its format cannot say) is passed
over. Nothing follows once a head went to the client, nor a refusal of ours, nor a request that its
caller signed.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace

import orjson

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_id
from lava_proxy.proxy import admission, rewriting
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.intake import Scope
from lava_proxy.proxy.rewrite import Rewrite, Step
from lava_proxy.proxy.run import Run
from lava_proxy.wire.target import parse_written
from lava_proxy.wire.token import Credential

log = logging.getLogger(__name__)

HEADER = b"x-lava-fallbacks"
STEPS_MAX = 5
TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500
_FORM = 'must be a JSON array of at most 5 {"url", "model"}'


def failed(status: int) -> bool:
    """Whether another provider may do better."""
    return status == TOO_MANY_REQUESTS or status >= SERVER_ERROR


def begin(gateway: Gateway, run: Run, scope: Scope, credential: Credential, body: bytes) -> None:
    """The call's chain: the header's where there is one, else the account's; and what is needed to
    ask again."""
    rewrite, caller = run.rewrite, run.caller
    if rewrite is None or caller is None:
        return
    rewrite.asked, rewrite.credential = body, credential
    given = [value for name, value in scope["headers"] if name == HEADER]
    if given:
        rewrite.steps = deque(_read(gateway, given))
    else:
        rewrite.steps = deque(Step(url, model) for url, model in caller.merchant.fallbacks)


def prepare(gateway: Gateway, run: Run, scope: Scope) -> None:
    """Make the next attempt that can be made ready as `run.following`."""
    rewrite = run.rewrite
    if rewrite is None or run.response_started or run.left_s is not None or run.signed is not None:
        return
    while rewrite.steps and run.following is None:
        try:
            run.following = _next(gateway, run, rewrite, rewrite.steps.popleft(), scope)
        except LavaError:
            continue
        except Exception:  # a defect here must not keep the failed attempt from being booked
            log.exception("call %s: no next attempt", run.request_id)


def _next(gateway: Gateway, old: Run, rewrite: Rewrite, step: Step, scope: Scope) -> Run:
    run = Run(
        new_id("request"),
        gateway.books.clock.boot_s(),
        old.task,
        began_s=old.began_s or old.started_s,
        caller=old.caller,
        metadata=old.metadata,
        head=old.head,
        target=parse_written(step.url, plain_hosts=gateway.registry_hosts),
        rewrite=replace(rewrite, translation=None),
    )
    run.flags.add("fallback")
    admission.find_route(gateway, run, scope["method"])
    if not run.managed and run.provider is not old.provider:
        raise LavaError("forbidden", "the caller's own key is for another provider")
    if run.managed and run.provider is not None:
        gateway.keys.require(run.provider)
    body = rewriting.translate(gateway, run, rewrite.asked, step.model)
    admission.read_ask(run, scope["method"], run.head.content_type, body)
    if run.rewrite is not None:
        run.rewrite.body = body
    return run


def _read(gateway: Gateway, given: list[bytes]) -> list[Step]:
    """The header's steps; 400 for what is no target at all."""
    try:
        items = orjson.loads(given[0]) if len(given) == 1 else None
    except orjson.JSONDecodeError:
        items = None
    if not isinstance(items, list) or len(items) > STEPS_MAX:
        raise LavaError("invalid_request", f"{HEADER.decode()} {_FORM}")
    steps = [_step(item) for item in items]
    for step in steps:
        target = parse_written(step.url, plain_hosts=gateway.registry_hosts)
        place = gateway.registry.at(target.host, target.port)
        if place is None or place[1].route("POST", target.path) is None:
            raise LavaError(
                "forward_endpoint_not_supported",
                f"{HEADER.decode()}: {step.url} is not in the table",
            )
    return steps


def _step(item: object) -> Step:
    url = item.get("url") if isinstance(item, dict) else None
    model = item.get("model") if isinstance(item, dict) else None
    if not isinstance(url, str) or not isinstance(model, str) or not url or not model:
        raise LavaError("invalid_request", f"{HEADER.decode()} {_FORM}")
    return Step(url, model)
