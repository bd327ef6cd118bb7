"""Addresses, headers and keys that are not what they should be: they are found, or not, and nothing is taken for another."""

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from gateway import surface
from gateway.dialects.body import BadBody
from gateway.dialects.secrets import said
from gateway.dialects.shape import Call
from gateway.surface import ANTHROPIC, GEMINI, OPENAI, XAI
from tests.fuzz.tape import Tape, mutated

_PATHS = [
    *surface._FIXED, *surface._SOCKETS, b"/v1/models", b"/anthropic/v1/models/claude", b"/gemini/v1beta/models",
    b"/gemini/v1beta/models/gemini-own:generateContent", b"/v1/models/models/a%2Fb:streamGenerateContent",
    b"/v1alpha/tunedModels/x:countTokens", b"/openai/v1/files/file-1/content", b"/upload/v1beta/files", b"/weir/v1/balance",
    b"/v1/messages/batches", b"/gemini/v1beta/cachedContents/x", b"/v1/responses/resp_1/cancel", b"/", b"*", b"",
]  # fmt: skip
_STEPS = [
    b"/..",
    b"/.",
    b"//",
    b"\\",
    b"%2e%2e/",
    b"%2F..%2F",
    b"%00",
    b"/openai",
    b":generateContent",
    b"models/",
    b"?",
    b"#",
]
# A path of Gemini's, slot by slot; the first of each slot is the right one.
_SLOTS = (
    (b"/gemini", b"", b"/gemini", b"/openai", b"/gemini/"),
    (b"/v1beta", b"/v1", b"/v1alpha", b"/v1beta2", b"/v2", b"/V1", b""),
    (b"/models/", b"/models/models/", b"/tunedModels/", b"/models/models/models/", b"/models", b"/"),
    (
        b"gemini-own",
        b"a%2Fb",
        b"a/b",
        b"x@1",
        b"",
        b".",
        b"..",
        b"%2E%2E",
        b"a%2F..%2Fb",
        b"a//b",
        b"models/",
        b"\xc3\xa9",
    ),
    (b"", b"", b"-1.5_x", b"%2f", b"/", b":", b"%3A", b"%25", b" ", b"\\"),
    (
        b":generateContent",
        b":countTokens",
        b":streamGenerateContent",
        b":embedContent",
        b":predict",
        b"",
        b":GenerateContent",
    ),
)
_DOTS = re.compile(rb"(?:^|[/\\])\.\.(?:[/\\]|$)")
_SECRETS = (
    b"weir_p00abc_secret",
    b"sk-ant-x",
    b"openai-insecure-api-key.weir_x",
    b"",
    b"Bearer ",
    b"Bearer weir_x",
    b"a, b",
)
_NAMES = (b"authorization", b"x-api-key", b"x-goog-api-key", b"sec-websocket-protocol", b"anthropic-version", b"host")
_CALL = b'{"contents":[{"parts":[{"text":"Hi"}]}]}'


def check(tape: Tape) -> None:
    """One address, with some headers and a query."""
    if tape.chance(2):
        path = b"".join(tape.pick(slot) if tape.chance(2) else slot[0] for slot in _SLOTS)
    else:
        path = mutated(tape, tape.pick(_PATHS), [*_PATHS, *_STEPS])
    headers = [(tape.pick(_NAMES), mutated(tape, tape.pick(_SECRETS), _SECRETS)) for _ in range(tape.number(4))]
    query = mutated(tape, b"alt=sse&key=weir_x&model=m", [b"key=", b"&", b"%zz", b"alt=sse"])
    scope = {"type": "http", "raw_path": path, "headers": headers, "query_string": query}
    served, socket = surface.find(scope), surface.find_socket(scope)
    dialect = surface.dialect_of(scope)
    assert dialect.error_body(surface.unknown(scope), "r")
    assert socket is None or path in surface._SOCKETS
    for each in (OPENAI, XAI, ANTHROPIC, GEMINI):
        secret = each.secret(said(headers), query)
        values = [value for _, value in headers] + [query, unquote_to_bytes(query)]
        assert any(secret in value for value in values), "a key is made of what was sent"
    if served is not None:
        _check_served(served, path, query)


def _check_served(served: surface.Served, path: bytes, query: bytes) -> None:
    """What is served is one of the paths that are written down, or one with a model's name, in which no step leads up."""
    if path in surface._FIXED:
        assert served == surface._FIXED[path]
        return
    assert not _DOTS.search(unquote_to_bytes(path)), path
    assert not re.search(rb"[^!-~]|\\|//", path), path
    version, model = served.target
    assert version.startswith("v1")
    assert model.encode() in unquote_to_bytes(path)
    if served.endpoint is not None:
        _check_sent(served, model, query)


def _check_sent(served: Any, model: str, query: bytes) -> None:
    """The provider's path is made of constants and of a name that cannot change what they mean."""
    call = Call(_CALL, query=query, target=served.target)
    try:
        asked = served.endpoint.read(call)
    except BadBody:
        return
    assert asked.model == model.removeprefix("models/")
    out = served.endpoint.write(call, asked, model="the/provider's ?#%: name", cap=None).path
    head, _, tail = out.rpartition(":")
    assert head == f"/{served.target[0]}/the/provider%27s%20%3F%23%25%3A%20name"
    assert re.fullmatch(r"[A-Za-z]+(?:\?alt=sse)?", tail)
