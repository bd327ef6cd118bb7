"""Requests that are not what they should be: read as they are for every reader, or refused; and spliced with nothing lost.

What holds for any bytes: `Asked` or BadBody and nothing else; what is read has no name twice and no number that is none; its
quote is a list of whole amounts; and what goes to the provider is the caller's bytes but for the model's name, the cap and
the usage switch, where another reader of JSON finds them.
"""

import contextlib
import copy
from typing import Any

import orjson
from msgspec.structs import replace

from gateway import quotes
from gateway.dialects.body import BadBody
from gateway.dialects.gemini.generate import GenerateContent
from gateway.dialects.openai.realtime import ResponsesSocket
from gateway.dialects.shape import Asked, Call, Endpoint
from ledger.catalogue import Model
from ledger.money import MAX_NANOS
from tests.fuzz import reading
from tests.fuzz.answers import PRICED
from tests.fuzz.reading import HIDDEN, Path
from tests.fuzz.requests import REQUESTS, Request, asked_by
from tests.fuzz.tape import Tape, mutated

Parsed = dict[str, Any]
BODIES = [request.call.body for request in REQUESTS]
SOCKET = ResponsesSocket()
_OTHER = "models-of/their own"
_FIELDS = {
    "chat.completions": "max_completion_tokens",
    "responses": "max_output_tokens",
    "messages": "max_tokens",
}


def check(tape: Tape) -> None:
    """One JSON request, after mutations."""
    request = tape.pick(REQUESTS)
    endpoint, call = request.endpoint, replace(request.call, body=mutated(tape, request.call.body, BODIES))
    if endpoint.name == "responses" and tape.chance(4):
        with contextlib.suppress(BadBody):
            asked = SOCKET.ask(call.body)
            assert SOCKET.write(call.body, asked, model=asked.model, cap=None) == call.body
    read = asked_by(endpoint, call)
    if read is not None:
        _check_asked(read)
        _check_quote(PRICED.model, read, call.body, endpoint)
        _check_written(request, call, read)


def _check_asked(asked: Asked) -> None:
    assert asked.model
    assert asked.cap is None or 0 <= asked.cap < 2**31
    assert 1 <= asked.choices < 2**62
    assert min(asked.searches, asked.seconds, asked.extra_input) >= 0
    assert asked.stored is None or asked.stored.isidentifier()


def _check_quote(model: Model, asked: Asked, body: bytes, endpoint: Endpoint) -> None:
    quote = quotes.quote(model, asked, len(body), 1_000_000)
    assert quote.amounts == sorted(quote.amounts, reverse=True)
    assert quote.caps == sorted(quote.caps, reverse=True)
    assert all(type(n) is int and 0 < n <= MAX_NANOS for n in quote.amounts), (
        "nothing for free, nor more than can be held"
    )
    assert quotes.estimate(body, asked) >= 0
    if endpoint.free:
        assert not asked.writes


def _check_written(request: Request, call: Call, asked: Asked) -> None:
    endpoint = request.endpoint
    if not asked.hide_usage:
        assert endpoint.write(call, asked, model=asked.model, cap=None).body == call.body
    parsed = reading.read(call.body)
    for model, cap in ((_OTHER, None), (asked.model, 4096), (_OTHER, 4096)):
        if cap is None or (asked.cap is None and asked.capped and asked.writes):  # else nobody sets one
            out = endpoint.write(call, asked, model=model, cap=cap).body
            changes = _changes(endpoint, parsed, asked, model, cap)
            assert reading.read(out) == _after(parsed, changes)
            _check_kept(call.body, out, list(changes))


def _changes(endpoint: Endpoint, parsed: Parsed, asked: Asked, model: str, cap: int | None) -> dict[Path, Any]:
    """What the provider should read otherwise than the caller wrote, by where it is."""
    changes: dict[Path, Any] = {}
    if asked.hide_usage:
        # The options of a stream are few, and written anew: their numbers may look otherwise.
        options = {**(asked.parsed.get("stream_options") or {}), "include_usage": True}
        changes[("stream_options",)] = reading.read(orjson.dumps(options))
    if not isinstance(endpoint, GenerateContent):
        changes[("model",)] = model
        if cap is not None:
            changes[(_FIELDS[endpoint.name],)] = str(cap)
        return changes
    if model != asked.model:
        changes |= dict.fromkeys(endpoint._models, model)
    if cap is not None:
        config = "generation_config" if "generation_config" in parsed else "generationConfig"
        if isinstance(parsed.get(config), dict):
            name = "max_output_tokens" if "max_output_tokens" in parsed[config] else "maxOutputTokens"
            changes[(config, name)] = str(cap)
        else:
            changes[(config,)] = {"maxOutputTokens": str(cap)}
    return changes


def _after(parsed: Parsed, changes: dict[Path, Any]) -> Parsed:
    found: Parsed = copy.deepcopy(parsed)
    for path, value in changes.items():
        _put(found, path, value)
    return found


def _put(holder: Any, path: Path, value: Any) -> None:
    """A model's name is put only where there is one; everything else also where there is nothing."""
    name, rest = path[0], path[1:]
    if name is None:
        for each in holder if isinstance(holder, list) else ():
            _put(each, rest, value)
    elif isinstance(holder, dict) and rest:
        _put(holder.get(name), rest, value)
    elif isinstance(holder, dict) and (name != "model" or holder.get(name) is not None):
        holder[name] = value


def _check_kept(before: bytes, after: bytes, paths: list[Path]) -> None:
    """Every byte outside the changed values is as it was; what was added is one member at the end of its object."""
    old, new = reading.without(before, paths), reading.without(after, paths)
    for path in paths:
        if HIDDEN in reading.without(after, [path]) and HIDDEN not in reading.without(before, [path]):
            member = f'"{path[-1]}":{HIDDEN}'
            new = new.replace("," + member, "", 1) if "," + member in new else new.replace(member, "", 1)
    assert new == old
