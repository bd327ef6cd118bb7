"""Forms with files (multipart/form-data, RFC 7578 and 2046) that are whole in memory: read what a quote needs, and put
another model's name in (wire.md 1c).

Strict, because two readers must not see two forms: lines end in CRLF, nothing comes before the first boundary or after
the last, the boundary is nowhere else, and what a quote reads is there once. No SDK sends what is refused here.
"""

import re
from typing import NamedTuple

from gateway.dialects.body import BadBody

MAX_PARTS = 1000
MAX_PART_HEADERS = 8192
MEDIA_TYPE = b"multipart/form-data"
# What quotes and meters read: the first and the last of two could differ.
ONCE = frozenset(("model", "n", "stream", "response_format", "output_format", "partial_images"))

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# In quotes, a quote ends the value. An escaped one is refused: for some readers it ends the value too.
_PARAMETER = re.compile(rb';[ \t]*(%b)=(?:(%b)|"((?:[^"\r\n\x00]*[^"\\\r\n\x00])?)")[ \t]*' % (_TOKEN, _TOKEN))
_HEADER = re.compile(rb"(%b):([^\r\n\x00]*)" % _TOKEN)
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
# A name is compared with those of fields, so there must be one way to spell it.
_NAME = re.compile(rb"[A-Za-z0-9_.-]+(?:\[[A-Za-z0-9_.-]*\])*")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_AS_IT_IS = (b"7bit", b"8bit", b"binary")


class Part(NamedTuple):
    """A field or file: where its content begins and ends in the body."""

    name: str
    start: int
    end: int
    is_file: bool

    @property
    def size(self) -> int:
        return self.end - self.start


class Form(NamedTuple):
    """A form's parts in the order in which they came, files or not."""

    body: bytes
    parts: tuple[Part, ...]

    def files(self) -> list[Part]:
        return [part for part in self.parts if part.is_file]

    def word(self, name: str) -> str | None:
        """The text of a field that is there at most once; None if it is not there."""
        part = self.field(name)
        if part is None:
            return None
        try:
            return self.body[part.start : part.end].decode()
        except UnicodeDecodeError:
            raise BadBody(f"The field '{name}' is not UTF-8.") from None

    def model(self) -> str:
        value = self.word("model")
        if not value:
            raise BadBody("The field 'model' is missing; name one of the models that GET /weir/v1/models lists.")
        return value

    def flag(self, name: str) -> bool:
        value = (self.word(name) or "false").lower()  # there are SDKs that write True
        if value not in ("true", "false"):
            raise BadBody(f"The field '{name}' must be true or false.")
        return value == "true"

    def whole(self, name: str) -> int | None:
        """A positive whole number, None if it is not there."""
        value = self.word(name)
        if value is not None and not _NUMBER.fullmatch(value):
            raise BadBody(f"The field '{name}' must be a positive whole number.")
        return None if value is None else int(value)

    def field(self, name: str) -> Part | None:
        """The part of a field, which a file of its name is not."""
        for part in self.parts:
            if part.name == name:
                if part.is_file:
                    raise BadBody(f"The field '{name}' must not be a file.")
                return part
        return None


def is_form(content_type: bytes) -> bool:
    """Whether a body says that it is a form with files."""
    return content_type.partition(b";")[0].strip().lower() == MEDIA_TYPE


def parse(body: bytes, content_type: bytes) -> Form:
    """The form of a body; BadBody for anything that is not exactly one."""
    delimiter = b"--" + _boundary(content_type)
    if not body.startswith(delimiter):
        raise BadBody("The form does not begin with its boundary.")
    parts: list[Part] = []
    at = len(delimiter)
    while not body.startswith(b"--", at):
        if len(parts) == MAX_PARTS:
            raise BadBody(f"The form has more than {MAX_PARTS} parts.")
        part = _part(body, at, delimiter)
        parts.append(part)
        at = part.end + 2 + len(delimiter)
    if body[at + 2 :] not in (b"", b"\r\n"):
        raise BadBody("The form goes on after its end.")
    # Behind a bare line feed, say: there are readers for whom that is a boundary, too.
    if body.count(delimiter) != len(parts) + 1:
        raise BadBody("The form has its boundary inside a part.")
    _check_once(parts)
    return Form(body, tuple(parts))


def replace_field(form: Form, name: str, value: str) -> bytes:
    """The same bytes with the value of one field replaced; the field must be there."""
    part = form.field(name)
    if part is None:
        raise KeyError(name)
    return b"".join((form.body[: part.start], value.encode(), form.body[part.end :]))


def _boundary(content_type: bytes) -> bytes:
    kind, separator, rest = content_type.partition(b";")
    boundary = _parameters(separator + rest, "content type").get(b"boundary")
    if kind.strip().lower() != MEDIA_TYPE:
        raise BadBody("The body must be a form (multipart/form-data).")
    if boundary is None or not _BOUNDARY.fullmatch(boundary):
        raise BadBody("The form's content type has no valid boundary.")
    return boundary


def _parameters(text: bytes, where: str) -> dict[bytes, bytes]:
    """`; name=value` as often as it comes, each name once."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        parameter = _PARAMETER.match(text, at)
        name = parameter[1].lower() if parameter else b""
        if parameter is None or name in found:
            raise BadBody(f"The parameters of a form's {where} cannot be read.")
        found[name] = parameter[3] if parameter[2] is None else parameter[2]
        at = parameter.end()
    return found


def _part(body: bytes, at: int, delimiter: bytes) -> Part:
    """The part after the boundary that ends at `at`."""
    if not body.startswith(b"\r\n", at):
        raise BadBody("A boundary of the form is not a line of its own.")
    # From the boundary's own line end, so that a part without headers is found to have none.
    head = body.find(b"\r\n\r\n", at, at + MAX_PART_HEADERS)
    if head < 0:
        raise BadBody(f"A part of the form has no end of its headers within {MAX_PART_HEADERS} bytes.")
    start = head + 4
    end = body.find(b"\r\n" + delimiter, start)
    if end < 0:
        raise BadBody("The form breaks off: its last boundary is missing.")
    name, is_file = _disposition(_headers(body[at + 2 : max(head, at + 2)]))
    return Part(name, start, end, is_file)


def _headers(text: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for line in text.split(b"\r\n"):
        header = _HEADER.fullmatch(line)
        name = header[1].lower() if header else b""
        if header is None or name in found:
            raise BadBody("The headers of a part of the form cannot be read.")
        found[name] = header[2].strip(b" \t")
    return found


def _disposition(headers: dict[bytes, bytes]) -> tuple[str, bool]:
    """What a part is called, and whether it is a file."""
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in _AS_IT_IS:
        raise BadBody("A part of the form is encoded; send it as it is.")
    kind, separator, rest = headers.get(b"content-disposition", b"").partition(b";")
    if kind.strip().lower() != b"form-data":
        raise BadBody("A part of the form does not say that it is form-data.")
    parameters = _parameters(separator + rest, "part")
    name = parameters.get(b"name", b"")
    # `name*` and `name*0` are ways to say a name that only some readers know.
    if not _NAME.fullmatch(name) or any(b"*" in each and each != b"filename*" for each in parameters):
        raise BadBody("A part of the form has no plain name.")
    return name.decode(), b"filename" in parameters or b"filename*" in parameters


def _check_once(parts: list[Part]) -> None:
    """`model` and `model[]` are two of one name as well: some readers make a list of either."""
    names = [part.name.partition("[")[0] for part in parts]
    for name in ONCE:
        if names.count(name) > 1:
            raise BadBody(f"The form has the field '{name}' twice.")
