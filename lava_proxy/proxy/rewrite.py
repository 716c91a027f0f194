"""What one call of `/v1/rewrite` knows beside the others: the client's dialect, and how the
provider's bytes become the client's. In the same dialect they pass untouched."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from lava_adapters.contract import Adapter
from lava_proxy.net.upstream import Answer
from lava_proxy.wire.token import Credential
from lava_proxy.wire.translate.dialects import Dialect, Named
from lava_proxy.wire.translate.translation import Translation

_CLIENT_ONLY = (b"anthropic-", b"openai-", b"x-stainless-", b"x-goog-", b"amz-sdk-", b"x-amz")
"""Beginnings of headers that mean something to the client's own provider alone."""


@dataclass(frozen=True, slots=True)
class Step:
    """One target of a fallback chain: `url` with or without its scheme."""

    url: str
    model: str


@dataclass(slots=True)
class Rewrite:
    """The client's dialect, and the translation once both ends are known (None: same dialect)."""

    client: Dialect
    adapter: Adapter
    """Says no, and ends a stream, in the client's dialect."""
    named: Named = field(default_factory=Named)
    """What the client's URL says of the request."""
    translation: Translation | None = None
    steps: deque[Step] = field(default_factory=deque)
    """Where the call goes next if its provider fails."""
    asked: bytes = b""
    """The client's own body, for the next attempt."""
    body: bytes = b""
    """What a next attempt sends."""
    credential: Credential | None = None

    @property
    def broken(self) -> bool:
        """The client's stream must not end as if it were whole."""
        return self.translation is not None and self.translation.broken

    def request_headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The caller's headers without those of its own dialect."""
        if self.translation is None:
            return headers
        return [pair for pair in headers if not pair[0].startswith(_CLIENT_ONLY)]

    def hide(self, secrets: tuple[bytes, ...]) -> None:
        """The managed key, which a provider's error may echo."""
        if self.translation is not None:
            self.translation.secrets = secrets

    def head(self, answer: Answer, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The head that goes with the translated body. Nothing follows it: what a next attempt
        would need is let go."""
        self.asked = self.body = b""
        self.steps.clear()
        if self.translation is None:
            return headers
        content_type = self.translation.head(answer.status, answer.content_type)
        ours = (b"content-type", b"content-length", b"content-encoding", b"etag")
        kept = [pair for pair in headers if pair[0] not in ours]
        return [*kept, (b"content-type", content_type)]

    def feed(self, body: bytes) -> bytes:
        """The client's bytes for the provider's. No await: it runs between count and send."""
        return body if self.translation is None else self.translation.feed(body)

    def fail(self) -> bytes:
        """What tells the client that the provider's stream broke off."""
        return b"" if self.translation is None else self.translation.fail()

    def finish(self) -> bytes:
        """What is left to be sent when the provider's body is complete."""
        return b"" if self.translation is None else self.translation.finish()
