"""Meters: the unit goes in once and comes out with every tier; slugs are made and stay unique."""

from __future__ import annotations

import asyncio

from api_kit import Api

TIERS = [
    {"start": "0", "rate": "5"},
    {"start": "1000000", "rate": "3.00"},
    {"start": "10000000", "rate": "0.000000000001"},
]


async def test_what_goes_in_and_what_comes_out(api: Api) -> None:
    body = {"name": "GPT use", "rate_type": "fixed", "tier_type": "tokens_1m", "tiers": TIERS}
    made = await api.made("meters", body)
    assert made == {
        "meter_id": made["meter_id"],
        "meter_slug": "gpt-use",
        "name": "GPT use",
        "rate_type": "fixed",
        "tiers": [
            {"start": 0, "rate": "5.0000000000", "type": "tokens_1m"},
            {"start": 1000000, "rate": "3.0000000000", "type": "tokens_1m"},
            {"start": 10000000, "rate": "0.000000000001", "type": "tokens_1m"},
        ],
        "enforcement": "sliced",
        "overdraft": "0.0000000000",
        "unpriced": "refuse",
        "created_at": made["created_at"],
    }
    assert made["meter_id"].startswith("prd_")
    assert (await api.get(f"meters/{made['meter_id']}")).json == made
    assert (await api.get("meters/gpt-use")).json == made
    assert (await api.get("meters")).json == {
        "data": [made],
        "has_more": False,
        "next_cursor": None,
    }


async def test_what_we_show_can_be_sent_back(api: Api) -> None:
    made = await api.meter("a", tiers=TIERS)
    tiers = [{"start": t["start"], "rate": t["rate"]} for t in made["tiers"]]
    assert (await api.meter("b", tiers=tiers))["tiers"] == made["tiers"]


async def test_what_a_meter_does_with_a_model_without_a_price(api: Api) -> None:
    made = await api.meter(unpriced="dearest")
    assert made["unpriced"] == "dearest"
    changed = await api.call("PATCH", f"meters/{made['meter_id']}", {"unpriced": "refuse"})
    assert changed.json["unpriced"] == "refuse"
    again = await api.get(f"meters/{made['meter_id']}")
    assert again.json == changed.json


async def test_enforcement_and_overdraft(api: Api) -> None:
    made = await api.meter(enforcement="soft", overdraft="1.5")
    assert (made["enforcement"], made["overdraft"]) == ("soft", "1.5000000000")
    assert (await api.meter("s", enforcement="strict"))["enforcement"] == "strict"


async def test_slugs_are_made_unique(api: Api, other: Api) -> None:
    replies = await asyncio.gather(
        *(api.made("meters", _nameless("Voice é minutes!")) for _ in range(10))
    )
    slugs = {reply["meter_slug"] for reply in replies}
    assert len(slugs) == 10
    assert {"voice-minutes", "voice-minutes-2"} <= slugs
    assert (await api.made("meters", _nameless("日本")))["meter_slug"] == "meter"
    mine = await other.made("meters", _nameless("Voice minutes"))
    assert mine["meter_slug"] == "voice-minutes"  # slugs are the merchant's own


async def test_a_slug_has_an_end_of_its_own_when_numbers_are_used_up(api: Api) -> None:
    slugs = [(await api.made("meters", _nameless("X")))["meter_slug"] for _ in range(21)]
    assert slugs[:3] == ["x", "x-2", "x-3"]
    assert len(set(slugs)) == 21


async def test_a_taken_slug_is_a_conflict(api: Api) -> None:
    await api.meter("mine")
    reply = await api.post("meters", _nameless("n") | {"meter_slug": "mine"})
    assert (reply.status, reply.code) == (409, "conflict")


async def test_wrong_meters(api: Api) -> None:
    tier = {"start": "0", "rate": "1"}
    cases: list[tuple[dict[str, object], str]] = [
        ({"name": ""}, "name"),
        ({"rate_type": "per_token"}, "rate_type"),
        ({"tier_type": "tokens"}, "tier_type"),
        ({"tiers": []}, "tiers"),
        ({"tiers": "0"}, "tiers"),
        ({"tiers": [{"start": "1", "rate": "1"}]}, "tiers[0].start"),
        ({"tiers": [tier, {"start": "0", "rate": "2"}]}, "tiers[1].start"),
        (
            {"tiers": [tier, {"start": "5", "rate": "2"}, {"start": "4", "rate": "2"}]},
            "tiers[2].start",
        ),
        ({"tiers": [{"start": "1e3", "rate": "1"}]}, "tiers[0].start"),
        ({"tiers": [{"start": "-1", "rate": "1"}]}, "tiers[0].start"),
        ({"tiers": [{"start": True, "rate": "1"}]}, "tiers[0].start"),
        ({"tiers": [{"start": 0.5, "rate": "1"}]}, "tiers[0].start"),
        ({"tiers": [{"start": "0", "rate": "-1"}]}, "tiers[0].rate"),
        ({"tiers": [{"start": "0", "rate": "1e3"}]}, "tiers[0].rate"),
        ({"tiers": [{"start": "0", "rate": 1.5}]}, "tiers[0].rate"),
        ({"tiers": [{"start": "0", "rate": "1.0000000000001"}]}, "tiers[0].rate"),
        ({"tiers": [{"start": "0", "rate": "1000001"}]}, "tiers[0].rate"),
        ({"tiers": [tier | {"type": "tokens_1m"}]}, "tiers[0].type"),
        ({"tiers": [{"start": str(n), "rate": "1"} for n in range(51)]}, "tiers"),
        ({"meter_slug": "prd_mine"}, "meter_slug"),
        ({"meter_slug": "a\tb"}, "meter_slug"),
        ({"enforcement": "hard"}, "enforcement"),
        ({"overdraft": "1"}, "overdraft"),
        ({"unpriced": "free"}, "unpriced"),
        ({"overdraft": "-1", "enforcement": "soft"}, "overdraft"),
        ({"token_basis": "output"}, "token_basis"),
    ]
    for change, path in cases:
        reply = await api.post("meters", _nameless("n") | change)
        assert (reply.status, reply.code, reply.paths) == (422, "validation_error", [path]), change
    missing = await api.post("meters", {})
    assert missing.paths == ["name", "rate_type", "tier_type", "tiers"]
    assert (await api.get("meters")).json["data"] == []


def _nameless(name: str) -> dict[str, object]:
    return {
        "name": name,
        "rate_type": "fixed",
        "tier_type": "requests",
        "tiers": [{"start": "0", "rate": "1"}],
    }
