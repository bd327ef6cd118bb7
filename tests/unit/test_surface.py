"""Which address means which dialect, and what is not served although a provider has it."""

import pytest

from gateway import surface
from gateway.surface import ANTHROPIC, GEMINI, OPENAI, XAI


def scope(path: str, *names: str) -> dict[str, object]:
    raw, _, query = path.partition("?")
    return {
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), b"x") for name in names],
    }


@pytest.mark.wire("0.1", "0.2")
@pytest.mark.parametrize(
    ("path", "names", "dialect"),
    [
        ("/openai/v1/models", (), OPENAI),
        ("/xai/v1/models", ("anthropic-version",), XAI),
        ("/anthropic/v1/models/claude-own", (), ANTHROPIC),
        ("/gemini/v1/models", ("anthropic-version",), GEMINI),
        ("/v1/models", (), OPENAI),
        ("/v1/models", ("anthropic-version",), ANTHROPIC),
        ("/v1/models", ("x-goog-api-key",), GEMINI),
        ("/v1/models?pageSize=5&key=x", (), GEMINI),
        ("/v1beta/models", (), GEMINI),
        ("/v1/models/gemini-own:generateContent", (), GEMINI),
        ("/v1/models/gemini-own:generateContent", ("anthropic-version",), GEMINI),
        ("/v1beta/tunedModels/own:countTokens", (), GEMINI),
        ("/v1/messages", (), ANTHROPIC),
        ("/v1/chat/completions", ("anthropic-version",), OPENAI),
    ],
)
def test_the_dialect(path: str, names: tuple[str, ...], dialect: object) -> None:
    found = surface.find(scope(path, *names))
    assert found is not None
    assert found.dialect is dialect


@pytest.mark.wire("3a.2", "3a.3", "0.4")
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/gemini/v1beta/models/gemini-own:generateContent", ("v1beta", "gemini-own")),
        ("/gemini/v1/models/models/gemini-own:generateContent", ("v1", "gemini-own")),
        ("/v1alpha/models/publishers%2Fgoogle%2fown:countTokens", ("v1alpha", "publishers/google/own")),
        ("/v1beta2/tunedModels/own:generateContent", ("v1beta2", "tunedModels/own")),
        ("/gemini/v1beta/models/a%2F..%2Fb:generateContent", None),
        ("/gemini/v1beta/models/a//b:generateContent", None),
        ("/gemini/v1beta/models/%67emini-own:generateContent", None),
        ("/gemini/v1beta/models/gemini-own:generate%43ontent", None),
        ("/gemini/v2/models/gemini-own:generateContent", None),
    ],
)
def test_the_model_in_a_path(path: str, target: tuple[str, str] | None) -> None:
    found = surface.find(scope(path))
    assert (found.target if found else None) == target


@pytest.mark.wire("1a.5")
@pytest.mark.parametrize(
    "path",
    [
        "/openai/v1/decisions",
        "/openai/v1/live/sessions",
        "/openai/v1/realtime",  # over HTTP; as a WebSocket it is served
        "/openai/v1/organization/usage/completions",
        "/openai/v1/admin/projects",
        "/openai/v1/webhooks",
        "/anthropic/v1/organizations/me",
        "/anthropic/v1/skills",
        "/gemini/v1beta/interactions",
        "/gemini/v1beta/models/imagen-own:predict",
        "/gemini/v1beta/models/veo-own:predictLongRunning",
        "/gemini/v1beta/models/gemini-own:batchGenerateContent",
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
        "/xai/v1/audio/speech",
        "/xai/v1/tokenize-text",
    ],
)
def test_what_has_no_meter_is_not_served(path: str) -> None:
    assert surface.find(scope(path)) is None
    assert surface.find_socket(scope(path)) is None or path == "/openai/v1/realtime"
    assert surface.unknown(scope(path)).code.status == 404


@pytest.mark.wire("1a.3")
@pytest.mark.parametrize(
    "path",
    [
        "/openai/v1/files/file-1/content",
        "/v1/uploads",
        "/openai/v1/batches",
        "/openai/v1/videos",
        "/openai/v1/responses/resp_1",
        "/openai/v1/fine_tuning/jobs",
        "/openai/v1/conversations/conv_1/items",
        "/openai/v1/vector_stores",
        "/openai/v1/containers",
        "/anthropic/v1/messages/batches/b/results",
        "/anthropic/v1/files",
        "/gemini/upload/v1beta/files",
        "/gemini/v1beta/cachedContents",
    ],
)
def test_what_is_stored_is_not_served_and_the_404_says_why(path: str) -> None:
    assert surface.find(scope(path)) is None
    refusal = surface.unknown(scope(path))
    assert refusal.code.status == 404
    assert "one credential serves every caller" in refusal.message
