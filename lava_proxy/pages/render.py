"""Pages as bytes: templates, and the headers that keep them safe.

Everything that came from outside is escaped by the template engine. A page loads nothing: its style
and its script are inside, under a nonce of this one answer, so the policy allows nothing else. It
may be framed by the origin that the session names, and speaks to that origin only. The address of a
page is a secret: it is not cached, not indexed, and not told to the pages that it links to.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from lava_proxy.core.money import format_e10

ANYWHERE = "*"
"""Who may frame a notice: it has nothing to press."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A page, or a small answer to one."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def origin_of(url: str) -> str:
    """``https://shop.example/pricing?a=1`` -> ``https://shop.example``."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def usd(amount_e10: int) -> str:
    """250000000000 -> ``$25.00``; more places only where there is something in them."""
    whole, _, part = format_e10(amount_e10).partition(".")
    return f"${int(whole):,}.{part.rstrip('0').ljust(2, '0')}"


def day(at: datetime) -> str:
    """``29 November 2026``, in UTC."""
    at = at.astimezone(UTC)
    return f"{at.day} {at:%B %Y}"


class Renderer:
    """The templates. One per process."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("lava_proxy.pages"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        self._templates.filters.update(usd=usd, day=day)

    def page(self, template: str, status: int, *, framed_by: str, **values: object) -> Reply:
        """A page that `framed_by` may show in a frame."""
        nonce = secrets.token_urlsafe(16)
        text = self._templates.get_template(template).render(nonce=nonce, **values)
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "connect-src 'self'; form-action 'self'; base-uri 'none'; "
            f"frame-ancestors {framed_by}"
        )
        headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": policy}
        return Reply(status, text.encode(), headers)

    def notice(self, status: int, heading: str, text: str) -> Reply:
        """A page that only says something."""
        return self.page("notice.html", status, framed_by=ANYWHERE, heading=heading, text=text)
