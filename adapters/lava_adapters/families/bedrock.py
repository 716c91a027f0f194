"""AWS Bedrock: converse and invoke, whole or as binary frames; and rerank."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from .. import bedrock_caps
from ..awsframe import encode
from ..bedrock_caps import OUTER
from ..contract import Ask, Framing, Reader
from ..counts import member
from ..fold import Unread
from ..framings import is_json, media_type, whole
from ..jsonedit import set_nested
from ..quirks import Quirks
from ..replies import cut_message, dump, with_facts
from ..strict import limit, parse
from ..tool_fees import of_rerank
from ..weigh import weigh
from .bedrock_reader import BedrockReader
from .plain import Plain

_PRICED = frozenset(("messages", "system", "prompt", "inputText", "guardrailConfig")) | OUTER
_RERANKER = ("bedrockRerankingConfiguration", "modelConfiguration", "modelArn")
_STREAMS = ("converse-stream", "invoke-with-response-stream")


class Bedrock(Plain):
    """kind "converse", "invoke", "rerank" or "free"."""

    family = "bedrock"

    def __init__(self, quirks: Quirks, kind: str = "converse") -> None:
        self._kind = kind

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        if self._kind == "free" or method in ("GET", "HEAD", "DELETE"):
            return Ask(free=True, makes_output=False)
        if self._kind == "rerank":
            return _reranked(body)
        parts = path.split("/")
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        model = unquote(parts[-2]) if len(parts) > 2 else ""
        limits = bedrock_caps.read(model, request, body, converse=self._kind == "converse")
        return Ask(
            model=model or None,
            stream=parts[-1] in _STREAMS,
            output_cap=limits.cap,
            choices=limit(request, "num_generations") or 1,
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden or request.get("promptVariables") is not None,
            capable_of_cap=limits.capable,
            makes_output=limits.writes,
            object_ids=tuple(weight.object_ids),
            guarded=request.get("guardrailConfig") is not None,
        )

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        if output_cap is None or not ask.capable_of_cap:
            return body
        if ask.output_cap is not None and ask.output_cap <= output_cap:
            return body
        if self._kind == "converse":
            return set_nested(body, "inferenceConfig", "maxTokens", b"%d" % output_cap)
        request = parse(body, _PRICED)
        return bedrock_caps.lowered(body, ask.model or "", request, output_cap)

    def framing(self, ask: Ask, content_type: str) -> Framing:
        kind = media_type(content_type)
        if kind == "application/vnd.amazon.eventstream":
            return Framing.EVENT_STREAM
        if is_json(kind):
            return Framing.JSON
        return Framing.EVENT_STREAM if ask.stream else whole(ask)

    def reader(self, ask: Ask) -> Reader:
        return Unread(ask) if ask.free else BedrockReader(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        if framing is not Framing.EVENT_STREAM:
            return b""
        # A name that botocore knows: of others it raises an error without name and message.
        headers = {":exception-type": "validationException"}
        headers |= {":content-type": "application/json", ":message-type": "exception"}
        return encode(headers, dump(with_facts({"message": cut_message(message)}, facts)))

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        return dump(with_facts({"message": message, "__type": code}, facts))


def _reranked(body: bytes) -> Ask:
    """The model is named by its ARN, and nothing in the answer says what was charged."""
    request = parse(body, frozenset(("queries", "sources", "rerankingConfiguration")))
    weight = weigh(body, request)
    arn = member(request.get("rerankingConfiguration"), *_RERANKER)
    return Ask(
        model=(arn.rpartition("/")[2] or None) if type(arn) is str else None,
        input_bytes=weight.input_bytes,
        text_bytes=weight.text_bytes,
        hidden_input=weight.hidden,
        makes_output=False,
        tool_fees=of_rerank(request.get("sources"), weight.text_bytes),
    )
