"""Login of command-line tools: a page where a person types a key in, and the code it is traded for.

The tool listens on the loopback and opens ``/auth/connect?state&port`` in a browser. Whoever types
a secret key in there is sent to the tool with a code that works once, for a minute; the tool trades
it for a key of its own (``POST /v1/auth/callback``), which has a name and can be revoked by itself.
The key that was typed in goes nowhere but here, and the code nowhere but to 127.0.0.1.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment
from pydantic import Field
from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_secret, wallet_id_of
from lava_proxy.manage.auth import authenticate
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.fields import Body, read_fields
from lava_proxy.store import keys, logins

CODE_LASTS_S = 60.0
CODE_MAX_CHARS = 255
KEY_NAME = "Login"
FIELDS_MAX = 8

_STATE = re.compile(r"[0-9A-Za-z_-]{8,128}", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self' http://127.0.0.1:*; "
    "frame-ancestors 'none'; base-uri 'none'"
)
"""Browsers hold the redirect that follows a form to its form-action too."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Connect a tool</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 30rem; padding: 2rem 1rem;
       color: #1b1b1b; background: #fff }
label, input, button { display: block; font: inherit; width: 100%; box-sizing: border-box }
input, button { margin: 0.5rem 0 1rem; padding: 0.5rem }
[role=alert] { color: #a00000 }
@media (prefers-color-scheme: dark) {
  body { color: #eee; background: #161616 } [role=alert] { color: #ff9c9c }
}
</style>
</head>
<body>
<main>
<h1>Connect a tool</h1>
{% if usable %}
<p>A program on this computer (port {{ port }}) asks for a key of its own. Go on only if you have
just started it.</p>
{% if problem %}<p role="alert" id="problem">{{ problem }}</p>{% endif %}
<form method="post" autocomplete="off">
<input type="hidden" name="state" value="{{ state }}">
<input type="hidden" name="port" value="{{ port }}">
<label for="secret_key">A secret key of yours</label>
<input type="password" id="secret_key" name="secret_key" required autofocus
 autocomplete="off" spellcheck="false"{% if problem %} aria-describedby="problem"{% endif %}>
<button type="submit">Connect</button>
</form>
<p>The program gets a key named "{{ name }}", in the mode of yours. You can revoke it by itself.</p>
{% else %}
<p role="alert">This address is not complete: start the login from your tool again.</p>
{% endif %}
</main>
</body>
</html>
"""
_TEMPLATE = Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)


class AuthCode(Body):
    """What the tool was sent."""

    code: Annotated[str, Field(max_length=CODE_MAX_CHARS)]


class AuthCredentials(TypedDict):
    """A new key, shown this once, and whose it is. A merchant is its own account."""

    wallet_id: str
    secret_key_id: str
    secret_key: str
    merchant_id: str
    account_id: str


async def callback(desk: Desk, call: Call) -> Answer:
    """Trade a login's code for a new secret key, once and within a minute."""
    code = read_fields(AuthCode, call).code
    async with desk.writing() as conn:
        login = await logins.use_code(conn, code)
        if login is None:
            raise LavaError("invalid_code")
        made = await keys.add_key(conn, login.merchant_id, name=KEY_NAME, test=login.test)
    view: AuthCredentials = {
        "wallet_id": wallet_id_of(login.merchant_id, test=login.test),
        "secret_key_id": made.secret_key_id,
        "secret_key": made.secret_key,
        "merchant_id": login.merchant_id,
        "account_id": login.merchant_id,
    }
    return answer(view)


async def form(desk: Desk, call: Call) -> Answer:
    """The page where a person types a key in."""
    return _page(call.query_string)


async def connect(desk: Desk, call: Call) -> Answer:
    """Check the key, and send the browser on to the tool with a code."""
    fields = _fields(call.body)
    state, port = _usable(fields)
    if port is None:
        return _page(call.body)
    secret = fields.get("secret_key", "").strip().encode()
    try:
        principal = await authenticate(
            desk.books.directory, [(b"authorization", b"Bearer " + secret)]
        )
    except LavaError as error:
        if error.fault != "caller":
            raise
        return _page(call.body, "This is not a secret key in force.", 401)
    code = new_secret("lava_code_")
    async with desk.writing() as conn:
        await logins.keep_code(conn, code, principal.secret_key_id, CODE_LASTS_S)
    query = urlencode({"code": code, "state": state})
    return Answer(303, b"", _headers() | {"location": f"http://127.0.0.1:{port}/callback?{query}"})


def _page(text: bytes, problem: str = "", status: int = 200) -> Answer:
    state, port = _usable(_fields(text))
    usable = port is not None
    shown = _TEMPLATE.render(usable=usable, state=state, port=port, name=KEY_NAME, problem=problem)
    return Answer(status if usable else 400, shown.encode(), _headers())


def _headers() -> dict[str, str]:
    return {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": _POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }


def _fields(text: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(text.decode("ascii"), max_num_fields=FIELDS_MAX, errors="strict"))
    except ValueError:
        return {}


def _usable(fields: dict[str, str]) -> tuple[str, int | None]:
    """The tool's state and port; no port where one of them is not as tools send it."""
    state, port = fields.get("state", ""), fields.get("port", "")
    if not (_STATE.fullmatch(state) and _PORT.fullmatch(port) and int(port) < 2**16):
        return "", None
    return state, int(port)


ROUTES = (
    Route(
        "POST",
        "auth/callback",
        callback,
        answer=AuthCredentials,
        body=AuthCode,
        errors=("invalid_code",),
        auth="none",
    ),
)
PAGES = (
    Route("GET", "auth/connect", form, auth="none"),
    Route("POST", "auth/connect", connect, auth="none"),
    Route("GET", "auth/cli", form, auth="none"),
    Route("POST", "auth/cli", connect, auth="none"),
)
"""For people; ``cli`` is the older name."""
