"""The list of models in each dialect's shape (wire.md 1a, 2a and 3a): what SDKs' `models.list()` reads."""

from collections.abc import Sequence
from typing import Any

from ledger.catalogue import Model

_EPOCH = "1970-01-01T00:00:00Z"  # Weir does not know when a provider made a model, and does not guess


def openai(models: Sequence[Model]) -> dict[str, Any]:
    return {"object": "list", "data": [openai_one(model) for model in models]}


def openai_one(model: Model) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": 0, "owned_by": "weir"}


def anthropic(models: Sequence[Model]) -> dict[str, Any]:
    names = [model.name for model in models]
    return {
        "data": [anthropic_one(model) for model in models],
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


def anthropic_one(model: Model) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": _EPOCH,
        "max_input_tokens": model.max_input_tokens,
        "max_tokens": model.max_output_tokens,
    }


def gemini(models: Sequence[Model]) -> dict[str, Any]:
    return {"models": [gemini_one(model) for model in models]}


def gemini_one(model: Model) -> dict[str, Any]:
    return {
        "name": f"models/{model.name}",
        "displayName": model.name,
        "inputTokenLimit": model.max_input_tokens,
        "outputTokenLimit": model.max_output_tokens,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }


MANY = {"openai": openai, "xai": openai, "anthropic": anthropic, "gemini": gemini}
ONE = {"openai": openai_one, "xai": openai_one, "anthropic": anthropic_one, "gemini": gemini_one}
