"""What a request's built-in tools may cost beside its tokens, and how often they make the provider
read the prompt again: known before the call, as far as the request bounds it.

Tools that the caller runs (functions, shells, computers of its own) cost nothing here. Dollar
figures are not here: a fee is a kind, and the price data know what one costs.

https://platform.openai.com/docs/pricing#built-in-tools
https://docs.claude.com/en/docs/agents-and-tools/tool-use/overview#server-tools
https://ai.google.dev/gemini-api/docs/pricing
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .contract import ToolFee

Fees = tuple[tuple[ToolFee, int | None], ...]

_CALLERS_OWN = ("function", "custom", "computer", "local_shell", "apply_patch")
"""Beginnings of the types of OpenAI's tools that run at the caller."""
_CLAUDE_SERVED = ("web_search", "web_fetch", "code_execution", "tool_search", "advisor", "mcp")
"""Beginnings of the types of Anthropic's tools that run at Anthropic."""
_GROUNDING = frozenset(
    (
        *("googleSearch", "google_search", "googleSearchRetrieval", "google_search_retrieval"),
        *("enterpriseWebSearch", "enterprise_web_search", "googleMaps", "google_maps"),
    )
)
_CONTAINERS = {"1g": 1, "4g": 4, "16g": 16, "64g": 64}
"""By their memory."""
DOCUMENTS_PER_UNIT = 100
CHUNK_BYTES = 250
"""Cohere counts a long document once per piece; none is cut into smaller ones than this."""


def tools_of(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools of a request that are objects, as any of the dialects lists them."""
    tools = request.get("tools")
    if type(tools) is dict:
        return [tools]
    return [tool for tool in tools if type(tool) is dict] if type(tools) is list else []


def of_responses(request: Mapping[str, Any]) -> tuple[Fees, int | None]:
    """Fees, and rounds, of OpenAI's tools; ``max_tool_calls`` bounds all of them together."""
    served = [
        tool
        for tool in tools_of(request)
        if not _kind(tool, "function").startswith(_CALLERS_OWN)
        and _kind(_environment(tool)) != "local"
    ]
    if not served:
        return (), 1
    most = _count(request.get("max_tool_calls"))
    fees: dict[ToolFee, int | None] = {}
    for tool in served:
        kind = _kind(tool)
        if kind.startswith(("web_search", "x_search")):
            fees["web_search"] = most
        elif kind == "file_search":
            fees["file_search"] = most
        elif kind == "image_generation":
            fees["picture"] = most
        elif kind in ("code_interpreter", "shell") and not _named_container(tool):
            # An answer opens one for each of the two, and pays for it once.
            fees["container"] = (fees.get("container") or 0) + container_size(tool)
    return tuple(fees.items()), None if most is None else most + 1


def container_size(tool: Mapping[str, Any]) -> int:
    """How many of the smallest containers the one costs that a tool asks for."""
    container = tool.get("container")
    place = container if type(container) is dict else _environment(tool)
    memory = place.get("memory_limit")
    return _CONTAINERS.get(memory, 1) if type(memory) is str else 1


def _environment(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a shell runs: a container like a code interpreter's, or the caller's own machine."""
    found = tool.get("environment")
    return found if type(found) is dict else {}


def _named_container(tool: Mapping[str, Any]) -> bool:
    """Whoever opened it has paid for it."""
    named = _kind(_environment(tool)) == "container_reference"
    return named or type(tool.get("container")) is str


def of_chat(request: Mapping[str, Any], model: str | None) -> tuple[Fees, int | None]:
    """Fees, and rounds, of chat completions: a model that searches does it once, unless it is one
    for research; other hosts' tools and plug-ins have no bound."""
    served = _served(request) if "tools" in request else ()
    name, rounds = model or "", None if served else 1
    if "deep-research" in name or request.get("plugins") or "search" in " ".join(served):
        return (("web_search", None),), rounds
    if request.get("web_search_options") is not None or "-search-" in name:
        return (("web_search", 1),), rounds
    return (), rounds


def _served(request: Mapping[str, Any]) -> list[str]:
    """The types of a chat's tools that do not run at the caller."""
    kinds = [_kind(tool, "function") for tool in tools_of(request)]
    return [kind for kind in kinds if not kind.startswith(_CALLERS_OWN)]


def of_claude(request: Mapping[str, Any]) -> tuple[Fees, int | None]:
    """Fees, and rounds, of Anthropic's tools: each has its own ``max_uses``."""
    fees: list[tuple[ToolFee, int | None]] = []
    uses: list[int | None] = [None] if request.get("mcp_servers") else []
    for tool in tools_of(request):
        kind = _kind(tool, "custom")
        if not kind.startswith(_CLAUDE_SERVED):
            continue
        most = _count(tool.get("max_uses"))
        uses.append(most)
        if kind.startswith("web_search"):
            fees.append(("web_search", most))
    return tuple(fees), sum_of(uses, 1)


def of_gemini(request: Mapping[str, Any], *, by_prompt: bool) -> Fees:
    """Grounding costs by the search; with older models by the prompt (`by_prompt`)."""
    if any(_GROUNDING & tool.keys() for tool in tools_of(request)):
        return (("web_search", 1 if by_prompt else None),)
    return ()


def of_rerank(documents: object, text_bytes: int) -> Fees:
    """Search units: one for every hundred documents, long ones in pieces."""
    given = len(documents) if type(documents) is list else 0
    return (("search_unit", 1 + (given + text_bytes // CHUNK_BYTES) // DOCUMENTS_PER_UNIT),)


def sum_of(counts: Iterable[int | None], first: int = 0) -> int | None:
    """The sum, unless one of them has no bound."""
    total = first
    for each in counts:
        if each is None:
            return None
        total += each
    return total


def _kind(tool: Mapping[str, Any], absent: str = "") -> str:
    kind = tool.get("type")
    return kind if type(kind) is str else absent


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1_000_000 else None
