"""Reading the few fields of a request that a quote needs. What is wrong is said in the caller's terms (BadBody)."""

from typing import Any, Final

from gateway.dialects import body as json_body
from gateway.dialects.body import BadBody

Parsed = dict[str, Any]
_MOST: Final = 2**31


def model(parsed: Parsed) -> str:
    value = parsed.get("model")
    if not isinstance(value, str) or not value:
        raise BadBody("The field 'model' is missing; name one of the models that GET /weir/v1/models lists.")
    return value


def flag(parsed: Parsed, name: str) -> bool:
    value = parsed.get(name) or False
    if not isinstance(value, bool):
        raise BadBody(f"The field '{name}' must be true or false.")
    return value


def whole(parsed: Parsed, name: str, *, least: int = 1) -> int | None:
    """A whole number of at least so much, None if it is absent or null."""
    value = parsed.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _MOST:
        raise BadBody(f"The field '{name}' must be a {'positive ' if least > 0 else ''}whole number.")
    return value


def record(parsed: Parsed, name: str) -> Parsed | None:
    """An object, None if it is absent or null."""
    value = parsed.get(name)
    if value is not None and not isinstance(value, dict):
        raise BadBody(f"The field '{name}' must be an object.")
    return value


def objects(parsed: Parsed, name: str) -> list[Parsed]:
    """A list of objects, an empty one if it is absent or null."""
    value = parsed.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise BadBody(f"The field '{name}' must be a list of objects.")
    return value


def word(parsed: Parsed, name: str) -> str | None:
    """A string, None if it is absent or null."""
    value = parsed.get(name)
    if value is not None and not isinstance(value, str):
        raise BadBody(f"The field '{name}' must be a string.")
    return value


def put(body: bytes, parsed: Parsed, name: str, value: Any) -> bytes:
    """Add a member to the outermost object, or replace the one there is, and leave every other byte alone."""
    change = json_body.replace_member if name in parsed else json_body.add_member
    return change(body, name, value)


def put_model(body: bytes, asked: str, wanted: str) -> bytes:
    """The provider's own name of the model in place of the public one."""
    return body if asked == wanted else json_body.replace_member(body, "model", wanted)
