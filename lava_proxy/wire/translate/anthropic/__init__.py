"""Anthropic's messages."""

from .answer import read_answer, read_error, write_answer, write_error
from .request_in import read_request
from .request_out import write_request
from .stream import AnthropicReader, AnthropicWriter

__all__ = [
    "AnthropicReader",
    "AnthropicWriter",
    "read_answer",
    "read_error",
    "read_request",
    "write_answer",
    "write_error",
    "write_request",
]
