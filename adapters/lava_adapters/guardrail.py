"""What a guardrail of Bedrock's looked at, out of its trace.

A text unit is up to 1,000 characters that one policy looked at. Word filters are free, and so are
patterns of one's own among the sensitive information.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_GuardrailUsage.html
"""

from __future__ import annotations

from .counts import count

_KINDS = {
    "contentPolicyUnits": "filters",
    "topicPolicyUnits": "filters",
    "sensitiveInformationPolicyUnits": "checks",
    "contextualGroundingPolicyUnits": "checks",
    "contentPolicyImageUnits": "others",
    "automatedReasoningPolicyUnits": "others",
}


def guardrail_units(trace: object) -> dict[str, int]:
    """Units by kind, over all assessments in `trace`; empty where it states none."""
    found: dict[str, int] = {}
    level = [trace]
    while level:
        inner: list[object] = []
        for each in level:
            if type(each) is list:
                inner += each
            elif type(each) is dict:
                metrics = each.get("invocationMetrics")
                if type(metrics) is dict:
                    _add(metrics.get("usage"), found)
                inner += [value for value in each.values() if type(value) in (dict, list)]
        level = inner
    return found


def _add(usage: object, into: dict[str, int]) -> None:
    if type(usage) is not dict:
        return
    for name, kind in _KINDS.items():
        into[kind] = into.get(kind, 0) + (count(usage.get(name)) or 0)
