"""Forms that are not what they should be: exactly one form for every reader, or refused.

What is read is what the standard library's reader of mail finds in the same bytes; what is sent on is the caller's bytes but
for the model's name.
"""

from email.parser import BytesParser
from email.policy import HTTP

from gateway import quotes
from gateway.dialects import multipart
from gateway.dialects.multipart import Form
from gateway.dialects.openai.audio import Transcriptions, Translations
from gateway.dialects.openai.images import ImageEdits, ImageVariations
from gateway.dialects.shape import Call, Endpoint
from ledger.money import MAX_NANOS
from tests.corpus import BOUNDARY, FORM_TYPE, form
from tests.fuzz.answers import PRICED
from tests.fuzz.requests import asked_by
from tests.fuzz.tape import Tape, mutated

ENDPOINTS: tuple[Endpoint, ...] = (Transcriptions(), Translations(), ImageEdits(), ImageVariations())
_FIELDS = {"model": "m", "n": "2", "stream": "true", "prompt": "é\r\n--x", "include[]": "logprobs"}
FORMS = [form(_FIELDS, ("file", 40)), form({"model": "m"}, None), form({**_FIELDS, "temperature": "0"}, ("image[]", 9))]
_HEAD = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"'.encode()
_PARTS = [
    b"\r\n--" + BOUNDARY.encode(), b"--" + BOUNDARY.encode() + b"--\r\n", b"\n--" + BOUNDARY.encode() + b"\n", _HEAD,
    b'; filename="a\\"', b"; name*=UTF-8''model", b"Content-Transfer-Encoding: base64\r\n", b"\r\n\r\n", b"\r\n folded",
    _HEAD + b"\r\n\r\nother\r\n", b'name="model[]"', b"Content-Type: text/plain; charset=utf-16\r\n", b"=?utf-8?q?model?=",
]  # fmt: skip
_TYPES = (FORM_TYPE, FORM_TYPE + b"; charset=utf-8", FORM_TYPE.replace(b"boundary=", b'boundary="') + b'"')


def check(tape: Tape) -> None:
    """One form, after mutations of its bytes and perhaps of its content type."""
    body = mutated(tape, tape.pick(FORMS), [*FORMS, *_PARTS])
    kind = mutated(tape, FORM_TYPE, _TYPES) if tape.chance(4) else tape.pick(_TYPES)
    kind = bytes(byte for byte in kind if byte >= ord(" "))  # the listener lets no other into a header
    endpoint, call = tape.pick(ENDPOINTS), Call(body, kind)
    asked = asked_by(endpoint, call)
    if asked is None:
        return
    assert asked.model
    assert asked.choices >= 1
    assert 0 <= asked.seconds <= len(body)
    quote = quotes.quote(PRICED.model, asked, len(body), 1_000_000)
    assert all(0 < amount <= MAX_NANOS for amount in quote.amounts)
    if isinstance(asked.parsed, Form):  # edits are JSON where the type says so
        _check_form(asked.parsed, kind)
        assert endpoint.write(call, asked, model=asked.model, cap=9).body == body
        part = asked.parsed.field("model")
        assert part is not None
        out = endpoint.write(call, asked, model="their/own", cap=None).body
        assert out == body[: part.start] + b"their/own" + body[part.end :]
        assert multipart.parse(out, kind).model() == "their/own"


def _check_form(found: Form, kind: bytes) -> None:
    """Another reader finds the same parts with the same names and contents."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind + b"\r\n\r\n" + found.body)
    parts = message.get_payload()
    assert isinstance(parts, list), found.body
    assert len(parts) == len(found.parts)
    for mine, theirs in zip(found.parts, parts, strict=True):
        assert theirs.get_param("name", header="content-disposition") == mine.name
        content = theirs.get_payload(decode=True)
        assert isinstance(content, bytes)
        assert _bare(content) == _bare(found.body[mine.start : mine.end])


def _bare(content: bytes) -> bytes:
    """Without line ends, which readers of mail see their own way."""
    return content.replace(b"\r", b"").replace(b"\n", b"")
