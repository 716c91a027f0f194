"""Tokens of a service account: asked for as Google's library asks, once for all, none sent late."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from google.auth import crypt, jwt
from google.oauth2 import service_account
from google_key import key_file, private_key

from lava_proxy.core.clock import ManualClock
from lava_proxy.core.errors import LavaError
from lava_proxy.net.google_account import (
    TOKEN_PATH,
    TOKEN_URL,
    AccountError,
    read_account,
    token_request,
)
from lava_proxy.net.google_tokens import MARGIN_S, RETRY_S, AccessTokens
from lava_proxy.net.simulated import Script, SimRequest, SimulatedProvider
from lava_proxy.net.upstream import Timeouts, Upstreams


class Google:
    """A token endpoint that numbers its tokens."""

    def __init__(self, sim: SimulatedProvider, clock: ManualClock, upstreams: Upstreams) -> None:
        self.sim, self.clock = sim, clock
        self.answers: list[Script] = []
        self.lasts_s = 3599
        self.tokens = AccessTokens(read_account(key_file()), upstreams, sim.url, clock)
        sim.script[TOKEN_PATH] = self._answer

    @property
    def asked(self) -> int:
        return len(self.sim.requests)

    def _answer(self, _request: SimRequest) -> Script:
        if self.answers:
            return self.answers.pop(0)
        return Script.json({"access_token": f"ya29.{self.asked}", "expires_in": self.lasts_s})

    async def settled(self) -> None:
        while self.tokens._fetch is not None:
            await asyncio.sleep(0.001)


@pytest.fixture
async def google() -> AsyncIterator[Google]:
    upstreams = Upstreams(
        Timeouts(2, 2, 2, 2), connections_per_host=4, named_hosts=frozenset(), private=True
    )
    async with SimulatedProvider() as sim:
        made = Google(sim, ManualClock(), upstreams)
        yield made
        await made.tokens.close()
        await upstreams.close()


async def test_the_request_is_what_googles_own_library_sends() -> None:
    clock = ManualClock()
    form = parse_qs(token_request(read_account(key_file()), clock.now()).decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    public = private_key().public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header, ours, signed, signature = jwt._unverified_decode(form["assertion"][0])
    assert crypt.verify_signature(signed, signature, pem)
    theirs = service_account.Credentials.from_service_account_info(
        json.loads(key_file()), scopes=["https://www.googleapis.com/auth/cloud-platform"]
    )._make_authorization_grant_assertion()
    their_header, wanted, *_ = jwt._unverified_decode(theirs)
    assert header == their_header
    assert ours.keys() == wanted.keys()
    for name in ("iss", "scope", "aud"):
        assert ours[name] == wanted[name]
    assert ours["aud"] == TOKEN_URL
    assert ours["exp"] - ours["iat"] == wanted["exp"] - wanted["iat"] == 3600


async def test_one_fetch_serves_all_who_wait(google: Google) -> None:
    tokens = await asyncio.gather(*(google.tokens.get() for _ in range(50)))
    assert set(tokens) == {"ya29.1"}
    assert google.asked == 1


async def test_who_gives_up_waiting_does_not_stop_the_others(google: Google) -> None:
    google.answers = [Script.json({"access_token": "t", "expires_in": 3599}, delay_s=0.05)]
    first, second = (asyncio.create_task(google.tokens.get()) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    assert await second == "t"
    assert google.asked == 1


async def test_a_token_is_renewed_in_the_background_before_it_ends(google: Google) -> None:
    google.tokens.tend()
    await google.settled()
    assert await google.tokens.get() == "ya29.1"
    google.clock.advance(2600)
    google.tokens.tend()
    assert google.asked == 1
    google.clock.advance(150)  # three quarters of an hour are over
    google.tokens.tend()
    assert await google.tokens.get() == "ya29.1"  # nobody waits for the new one
    await google.settled()
    assert await google.tokens.get() == "ya29.2"
    assert google.asked == 2


async def test_a_renewal_that_fails_leaves_the_old_token_until_its_margin(google: Google) -> None:
    assert await google.tokens.get() == "ya29.1"
    google.answers = [Script.json({"error": "x"}, status=500) for _ in range(9)]
    google.clock.advance(3599 - MARGIN_S - 1)
    google.tokens.tend()
    await google.settled()
    assert await google.tokens.get() == "ya29.1"
    google.clock.advance(2)
    with pytest.raises(LavaError) as raised:
        await google.tokens.get()
    assert (raised.value.status, raised.value.headers["retry-after"]) == (503, "2")
    google.answers = []
    google.clock.advance(RETRY_S)
    assert (await google.tokens.get()).startswith("ya29.")


async def test_a_failure_is_not_repeated_by_every_call(google: Google) -> None:
    google.answers = [Script.json({"error": "invalid_grant"}, status=400)]
    for _ in range(20):
        with pytest.raises(LavaError):
            await google.tokens.get()
    google.tokens.tend()
    assert google.asked == 1


@pytest.mark.parametrize(
    "answer",
    [
        Script.plain(b"<html>"),
        Script.json([]),
        Script.json({"access_token": "t"}),
        Script.json({"access_token": "t", "expires_in": 60}),
        Script.json({"access_token": "t", "expires_in": True}),
        Script.json({"access_token": "a b", "expires_in": 3599}),
        Script.json({"access_token": "a\r\nx: y", "expires_in": 3599}),
        Script.json({"access_token": "", "expires_in": 3599}),
        Script.json({"access_token": "t", "expires_in": 3599}, status=302),
        Script.plain(b"x" * 100_000),
    ],
)
async def test_odd_answers_are_no_tokens(google: Google, answer: Script) -> None:
    google.answers = [answer]
    with pytest.raises(LavaError):
        await google.tokens.get()


async def test_a_token_that_the_provider_refuses_is_replaced_once(google: Google) -> None:
    await google.tokens.get()
    google.tokens.refused()  # so new: it is the account that is refused
    assert await google.tokens.get() == "ya29.1"
    google.clock.advance(61)
    google.tokens.refused()
    assert await google.tokens.get() == "ya29.2"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"type": "authorized_user"}',
        key_file(type="external_account"),
        key_file(private_key="-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        key_file(private_key=None),
        key_file(client_email=1),
        key_file(universe_domain="example.org"),
    ],
)
def test_wrong_key_files(text: bytes) -> None:
    with pytest.raises(AccountError) as raised:
        read_account(text)
    assert "BEGIN" not in str(raised.value)


def test_an_account_hides_its_key() -> None:
    assert "RSA" not in repr(read_account(key_file()))
