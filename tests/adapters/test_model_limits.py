"""How much a model answers, by its name as callers and providers write it."""

from __future__ import annotations

import tomllib
from importlib import resources

import pytest

import lava_adapters
from lava_adapters import Registry
from lava_adapters.model_limits import NO_LIMITS, bare_name, model_limits


@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("gpt-4", 8_192),
        ("gpt-4-turbo-2024-04-09", 4_096),
        ("gpt-4o-mini", 16_384),
        ("GPT-4o-2024-05-13", 4_096),
        ("gpt-4.1-nano", 32_768),
        ("ft:gpt-4o-mini-2024-07-18:mine::1", 16_384),
        ("openai/gpt-5-mini", 128_000),
        ("o1-mini-2024-09-12", 65_536),
        ("o1", 100_000),
        ("claude-opus-4-1-20250805", 32_000),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", 64_000),
        ("amazon.nova-2-lite-v1:0", 64_000),
        ("amazon.nova-micro-v1:0", 10_000),
        ("gemini-2.0-flash", 8_192),
        ("gemini-2.5-pro", 65_535),
        ("gpt-5.1-chat-latest", 16_384),
        ("gpt-6.1-sol", 128_000),
        ("anthropic/claude-3.5-haiku", 8_192),
        ("claude-3.7-sonnet", 64_000),
        ("meta-llama/llama3-70b", None),
        ("somebodys-own", None),
        ("", None),
        ("x" * 10_000, None),
    ],
)
def test_the_longest_beginning_wins(model: str, output: int | None) -> None:
    assert model_limits(model).output == output


@pytest.mark.parametrize(
    ("provider", "model", "output"),
    [
        ("bedrock", "us.meta.llama3-3-70b-instruct-v1:0", 4_096),
        ("bedrock", "meta.llama3-70b-instruct-v1:0", 2_048),
        ("bedrock", "mistral.mistral-large-2402-v1:0", 4_096),
        ("bedrock", "openai.gpt-oss-120b-1:0", 16_384),
        ("groq", "openai/gpt-oss-120b", 65_536),
        ("together", "openai/gpt-oss-120b", None),
        ("vertex", "claude-sonnet-4-6", 64_000),
        ("anthropic", "claude-sonnet-4-6", 128_000),
        ("deepseek", "deepseek-chat", 8_192),
        ("novita", "deepseek/deepseek-chat", None),
        ("anthropic", "claude-opus-4-5", 64_000),
    ],
)
def test_one_server_may_stop_sooner(provider: str, model: str, output: int | None) -> None:
    assert model_limits(model, provider).output == output


def test_every_row_says_where_it_is_from() -> None:
    text = resources.files(lava_adapters).joinpath("model_limits.toml").read_text("utf-8")
    table = tomllib.loads(text)
    providers = {provider.id for provider in Registry.builtin().providers}
    names = [name for row in table["models"] for name in row["names"]]
    assert all(row["source"].startswith("https://") for row in table["models"])
    assert len(names) == len(set(names))
    assert {name.partition(":")[0] for name in names if ":" in name} <= providers
    assert table["checked"] >= "2026-11-29"


def test_a_window_that_can_be_switched_on_is_the_window() -> None:
    assert model_limits("claude-sonnet-4-5").window == 1_000_000
    assert model_limits("nobody") is NO_LIMITS


def test_regions_and_makers_go_and_names_stay() -> None:
    assert bare_name("eu.amazon.nova-pro-v1:0") == "nova-pro-v1:0"
    assert bare_name("gpt-4.1") == "gpt-4.1"
    assert bare_name("arn:aws:bedrock:us-east-1:1:inference-profile/us.meta.llama4-x") == "llama4-x"
