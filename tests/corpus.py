"""Every fixture as the request that it answers, the endpoint that reads it, and the bytes of the answer.

Fixtures that are about more than an answer's bytes have their request beside them; the others get the plainest one there is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gateway import surface
from gateway.dialects.shape import Asked, Call, Endpoint

GIVEN = Path(__file__).parent / "fixtures"
OWN = GIVEN / "own"
BOUNDARY = "----weir-0123456789"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}".encode()
SAID = [{"role": "user", "content": "Hi"}]
PLAIN: Mapping[str, dict[str, Any]] = {
    "chat.completions": {"messages": SAID},
    "completions": {"prompt": "Hi"},
    "responses": {"input": "Hi"},
    "responses.compact": {"input": "Hi"},
    "responses.input_tokens": {"input": "Hi"},
    "embeddings": {"input": "Hi"},
    "moderations": {"input": "Hi"},
    "messages": {"max_tokens": 500, "messages": SAID},
    "count_tokens": {"messages": SAID},
}
"""The least that an endpoint's request says, beside the model and whether it is a stream."""
GEMINI_PLAIN = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


class Sample(NamedTuple):
    """One exchange."""

    name: str
    endpoint: Endpoint
    call: Call
    kind: bytes
    """The content type of the answer."""
    body: bytes
    expect: dict[str, Any]

    @property
    def asked(self) -> Asked:
        return self.endpoint.read(self.call)

    @property
    def streamed(self) -> bool:
        return self.kind.startswith(b"text/event-stream")


def form(fields: Mapping[str, str], file: tuple[str, int] | None) -> bytes:
    """A form with its file first, as Node's SDK writes it."""
    parts = [(f'name="{file[0]}"; filename="a.bin"', bytes(file[1]))] if file else []
    parts += [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    lines = [f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + b for head, b in parts]
    return b"".join(line + b"\r\n" for line in lines) + f"--{BOUNDARY}--\r\n".encode()


def endpoint_of(path: str) -> tuple[Endpoint, tuple[str, ...], bytes]:
    """The endpoint that serves a path, with what the path names, and the query."""
    raw, _, query = path.partition("?")
    served = surface.find({"raw_path": raw.encode(), "headers": [], "query_string": query.encode()})
    assert served is not None, path
    assert served.endpoint is not None, path
    return served.endpoint, served.target, query.encode()


def _call(request: dict[str, Any], streamed: bool) -> tuple[Endpoint, Call]:
    endpoint, target, query = endpoint_of(request["path"])
    if "form" in request:
        file = request["file"]
        return endpoint, Call(form(request["form"], (file["name"], file["size"])), FORM_TYPE)
    body = request.get("json")
    if body is None and target:
        body = GEMINI_PLAIN
    elif body is None:
        body = {"model": "m", **PLAIN[endpoint.name], **({"stream": True} if streamed else {})}
    return endpoint, Call(json.dumps(body).encode(), query=query, target=target)


def _load(path: Path) -> Sample:
    expect = json.loads(path.read_text())
    kind = expect["http"]["content_type"]
    endpoint, call = _call(expect["request"], kind.startswith("text/event-stream"))
    body = (path.parent / expect["body"]).read_bytes()
    return Sample(path.name.removesuffix(".expect.json"), endpoint, call, kind.encode(), body, expect)


SAMPLES = [_load(path) for path in sorted([*GIVEN.glob("*.expect.json"), *OWN.glob("*.expect.json")])]
