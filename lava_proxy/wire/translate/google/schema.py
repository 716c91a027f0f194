"""Google's own schema words as JSON Schema: types in lower case, `nullable` as a type."""

from __future__ import annotations

_NESTED = ("items", "additionalProperties")
_NAMED = ("properties", "$defs", "definitions")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")


def lowered(schema: object) -> object:
    """The same schema in JSON Schema's words. Depth is bounded by what JSON parsers take."""
    if not isinstance(schema, dict):
        return schema
    found: dict[str, object] = dict(schema)
    kind = found.get("type")
    if isinstance(kind, str):
        found["type"] = kind.lower()
        if found.pop("nullable", None) is True:
            found["type"] = [kind.lower(), "null"]
    for name in _NESTED:
        if name in found:
            found[name] = lowered(found[name])
    for name in _NAMED:
        held = found.get(name)
        if isinstance(held, dict):
            found[name] = {key: lowered(value) for key, value in held.items()}
    for name in _LISTED:
        several = found.get(name)
        if isinstance(several, list):
            found[name] = [lowered(value) for value in several]
    return found
