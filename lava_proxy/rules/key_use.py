"""Whether a spend key may be used for a call: the one place that says no, and with which code."""

from __future__ import annotations

from datetime import datetime

from lava_proxy.rules.limits import Shape, SpendKey


def refusal(key: SpendKey, shape: Shape | None, at: datetime) -> str | None:
    """Why the key may not be used now, or not at an endpoint of this shape; None when it may."""
    if key.status != "active":
        return "key_paused"
    if key.expires_at is not None and key.expires_at <= at:
        return "key_expired"
    return "request_shape_mismatch" if shape not in (None, key.request_shape) else None


def model_refusal(key: SpendKey, model: str, provider: str) -> str | None:
    """Why the key may not use this model of this provider; None when it may. A list names a model
    as its provider does, or as ``provider/model``."""
    models, providers = key.allowed_models, key.allowed_providers
    if providers is not None and provider not in providers:
        return "provider_not_allowed"
    if models is not None and not models & {model, f"{provider}/{model}"}:
        return "model_not_allowed"
    return None
