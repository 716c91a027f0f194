"""Official SDKs and what each makes of the gateway's answers: data that `test_sdk_matrix.py` and
`test_node_sdks.py` prove cell by cell, and that docs/providers.md shows.

A cell is the name of the exception that the SDK raises; its own typed error wherever it has one.
"""

from __future__ import annotations

from dataclasses import dataclass

TRANSPORT = "TransportError"
"""The SDK has no error for a running stream: it hands the error event out as the stream's last
item, and then finds the connection broken."""

PART = "error part"
"""Vercel's streams do not raise: what went wrong is a part of the stream, as a plain object."""


@dataclass(frozen=True, slots=True)
class Row:
    """One SDK and one of its APIs."""

    sdk: str
    """As the package index calls it."""
    api: str
    provider: str
    """Id in the provider table, which is the first segment of the base URL."""
    cut: str
    """Raised when a running stream is cut off; its text says ``budget_exhausted``."""
    refused: str
    """Raised for the 402 before anything is sent; one request, no retry."""
    failed: str
    """Raised when the provider answers 400: what it would be without the gateway."""
    base: str = ""
    """What the SDK's base URL has behind the provider's id."""

    @property
    def name(self) -> str:
        return f"{self.sdk} {self.api}"


PYTHON = (
    Row("openai", "chat", "openai", "APIError", "APIStatusError", "BadRequestError", "/v1"),
    Row("openai", "completions", "openai", "APIError", "APIStatusError", "BadRequestError", "/v1"),
    Row("openai", "responses", "openai", "APIError", "APIStatusError", "BadRequestError", "/v1"),
    Row(
        "anthropic",
        "messages",
        "anthropic",
        "APIStatusError",
        "PaymentRequiredError",
        "BadRequestError",
    ),
    Row("google-genai", "generateContent", "google", "ClientError", "ClientError", "ClientError"),
    Row("mistralai", "chat", "mistral", "ResponseValidationError", "SDKError", "SDKError"),
    Row("cohere", "chat", "cohere", TRANSPORT, "ApiError", "BadRequestError"),
    Row("groq", "chat", "groq", "APIError", "APIStatusError", "BadRequestError"),
    Row("together", "chat", "together", "APIError", "APIStatusError", "BadRequestError"),
    Row(
        "cerebras-cloud-sdk",
        "chat",
        "cerebras",
        "APIStatusError",
        "APIStatusError",
        "BadRequestError",
    ),
    Row(
        "perplexityai", "chat", "perplexity", "APIStatusError", "APIStatusError", "BadRequestError"
    ),
    Row(
        "fireworks-ai",
        "chat",
        "fireworks",
        TRANSPORT,
        "APIStatusError",
        "BadRequestError",
        "/inference",
    ),
    Row("boto3", "converse", "bedrock", "EventStreamError", "ClientError", "ValidationException"),
    Row("boto3", "invoke", "bedrock", "EventStreamError", "ClientError", "ValidationException"),
)

NODE = (
    Row("openai", "chat", "openai", "APIError", "APIError", "BadRequestError", "/v1"),
    Row("openai", "responses", "openai", "APIError", "APIError", "BadRequestError", "/v1"),
    Row(
        "@anthropic-ai/sdk",
        "messages",
        "anthropic",
        "APIError",
        "PaymentRequiredError",
        "BadRequestError",
    ),
    Row("@google/genai", "generateContent", "google", "ApiError", "ApiError", "ApiError"),
    Row("@ai-sdk/openai", "chat", "openai", PART, "APICallError", "APICallError", "/v1"),
    Row("@ai-sdk/openai", "responses", "openai", PART, "APICallError", "APICallError", "/v1"),
    Row("@ai-sdk/anthropic", "messages", "anthropic", PART, "APICallError", "APICallError", "/v1"),
    Row(
        "@ai-sdk/google",
        "generateContent",
        "google",
        "APICallError",
        "APICallError",
        "APICallError",
        "/v1beta",
    ),
)
