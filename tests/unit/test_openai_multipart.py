"""Forms with files: read strictly, one field replaced, and every other byte left as it came."""

import re
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.dialects import multipart
from gateway.dialects.body import BadBody
from tests.unit.test_openai_fixtures import BOUNDARY, FORM_TYPE, form

FILE = ("file", bytes(range(256)), "a.mp3")
MODEL = ("model", b"whisper-own", None)


class Drawn(NamedTuple):
    """A form and what is in it."""

    body: bytes
    content_type: bytes
    parts: list[tuple[str, bytes, str | None]]


NAMES = st.from_regex(re.compile(r"\A[A-Za-z0-9_.-]{1,8}(\[[a-z0-9]{0,3}\])?\Z"))
FILENAMES = st.none() | st.text(st.characters(exclude_characters='"\\\r\n\0', codec="utf-8"), max_size=8)
LINES = st.lists(st.sampled_from([b"\r\n", b"--", b"\n", b"\r", b"x", b"\x00", b"--own"]), max_size=8).map(b"".join)
PARTS = st.lists(st.tuples(NAMES, st.binary(max_size=40) | LINES, FILENAMES), max_size=6)


@st.composite
def forms(draw: st.DrawFn) -> Drawn:
    boundary = draw(st.from_regex(re.compile(r"\A[0-9A-Za-z'+_.-]{1,40}\Z"))).encode()
    parts = draw(PARTS)
    quote, end = draw(st.sampled_from([b"", b'"'])), draw(st.sampled_from([b"", b"\r\n"]))
    body = b""
    for name, content, filename in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        extra = draw(st.sampled_from([b"", b"\r\nContent-Type: text/plain", b"\r\ncontent-length: 7"]))
        head = b"--%b\r\nContent-Disposition: form-data; name=" % boundary + f'"{name}"{file}'.encode() + extra
        body += head + b"\r\n\r\n" + content + b"\r\n"
    body += b"--%b--" % boundary + end
    assume(body.count(b"--" + boundary) == len(parts) + 1)
    names = [name.partition("[")[0] for name, _, _ in parts]
    assume(all(names.count(name) < 2 for name in multipart.ONCE))
    return Drawn(body, b"multipart/form-data; boundary=" + quote + boundary + quote, parts)


@pytest.mark.wire("1c.3")
@given(forms())
def test_every_form_is_read(drawn: Drawn) -> None:
    found = multipart.parse(drawn.body, drawn.content_type)
    assert [(part.name, drawn.body[part.start : part.end], part.is_file) for part in found.parts] == [
        (name, content, filename is not None) for name, content, filename in drawn.parts
    ]


@pytest.mark.wire("1c.3", "5.4")
@given(forms(), st.binary(max_size=20), st.sampled_from(["", "gpt-4o-transcribe", "ünï"]), st.integers(0, 6))
def test_a_field_is_replaced_and_every_other_byte_stays(drawn: Drawn, old: bytes, new: str, at: int) -> None:
    assume(all(not name.startswith("model") for name, _, _ in drawn.parts))
    boundary = multipart._boundary(drawn.content_type)
    part = b'--%b\r\nContent-Disposition: form-data; name="model"\r\n\r\n' % boundary
    pieces = [b"--" + boundary + piece for piece in drawn.body.split(b"--" + boundary)[1:]]
    at = min(at, len(pieces) - 1)
    before, after = b"".join(pieces[:at]), b"".join(pieces[at:])
    assume(b"--" + boundary not in old)
    body = before + part + old + b"\r\n" + after
    found = multipart.parse(body, drawn.content_type)
    assert multipart.replace_field(found, "model", new) == before + part + new.encode() + b"\r\n" + after


@pytest.mark.wire("6.14")
@given(forms(), st.data())
def test_any_form_that_breaks_off_is_refused(drawn: Drawn, data: st.DataObject) -> None:
    whole = drawn.body.removesuffix(b"\r\n")
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BadBody):
        multipart.parse(whole[:cut], drawn.content_type)
    with pytest.raises(BadBody):
        multipart.parse(whole + b"\r", drawn.content_type)


@pytest.mark.wire("6.14")
@given(forms(), st.data())
def test_a_damaged_form_is_read_as_one_form_or_refused(drawn: Drawn, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(drawn.body) - 1))
    changed = drawn.body[:at] + data.draw(st.binary(max_size=3)) + drawn.body[at + 1 :]
    try:
        found = multipart.parse(changed, drawn.content_type)
    except BadBody:
        return
    boundary = multipart._boundary(drawn.content_type)
    assert changed.count(b"--" + boundary) == len(found.parts) + 1
    assert all(b"--" + boundary not in changed[part.start : part.end] for part in found.parts)


@pytest.mark.wire("1c.3")
def test_the_fields_that_a_quote_reads() -> None:
    found = multipart.parse(
        form([FILE, MODEL, ("n", b"3", None), ("stream", b"True", None), ("prompt", "é\r\n".encode(), None)]), FORM_TYPE
    )
    assert found.model() == "whisper-own"
    assert (found.whole("n"), found.whole("partial_images")) == (3, None)
    assert (found.flag("stream"), found.flag("other")) == (True, False)
    assert (found.word("prompt"), found.word("missing")) == ("é\r\n", None)
    assert [part.size for part in found.files()] == [256]
    with pytest.raises(KeyError):
        multipart.replace_field(found, "missing", "x")


@pytest.mark.wire("1c.4", "6.14")
@pytest.mark.parametrize(
    ("part", "method", "why"),
    [
        (("model", b"", None), "model", "missing"),
        (("other", b"x", None), "model", "missing"),
        (("model", b"x", "model.txt"), "model", "must not be a file"),
        (("model", b"\xff\xfe", None), "model", "not UTF-8"),
        (("n", b"0", None), "whole", "positive whole number"),
        (("n", b"1e3", None), "whole", "positive whole number"),
        (("n", b" 1", None), "whole", "positive whole number"),
        (("n", "\u0661".encode(), None), "whole", "positive whole number"),
        (("n", b"9999999999", None), "whole", "positive whole number"),
        (("n", b"yes", None), "flag", "true or false"),
        (("n", b"1", None), "flag", "true or false"),
    ],
)
def test_a_field_that_cannot_be_read_is_refused(part: tuple[str, bytes, str | None], method: str, why: str) -> None:
    found = multipart.parse(form([FILE, part]), FORM_TYPE)
    with pytest.raises(BadBody, match=why):
        getattr(found, method)(*(() if method == "model" else ("n",)))


@pytest.mark.wire("1c.3")
@pytest.mark.parametrize("name", sorted(multipart.ONCE))
@pytest.mark.parametrize("again", ["{}", "{}[]", "{}[a]"])
def test_what_a_quote_reads_is_there_once(name: str, again: str) -> None:
    for filename in (None, "a.txt"):
        twice = form([(name, b"a", None), FILE, (again.format(name), b"b", filename)])
        with pytest.raises(BadBody, match=f"'{name}' twice"):
            multipart.parse(twice, FORM_TYPE)
    lists = form([("include[]", b"a", None), ("include[]", b"b", None), ("image", b"", "a"), ("image", b"", "b")])
    assert len(multipart.parse(lists, FORM_TYPE).parts) == 4


def one(head: str, content: str = "x", *, end: str = "--\r\n") -> bytes:
    """A form of one part with these header lines."""
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n{content}\r\n--{BOUNDARY}{end}".encode()


PLAIN = 'Content-Disposition: form-data; name="model"'


@pytest.mark.wire("6.14")
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "does not begin"),
        (b"preamble\r\n" + one(PLAIN), "does not begin"),
        (one(PLAIN).removeprefix(b"--"), "does not begin"),
        (one(PLAIN) + b"epilogue", "goes on"),
        (one(PLAIN) + one(PLAIN), "goes on"),
        (one(PLAIN, end="--\n"), "goes on"),
        (one(PLAIN, end=" --\r\n"), "line of its own"),
        (one(PLAIN, end="x\r\n"), "line of its own"),
        (one(PLAIN).replace(b"\r\n", b"\n"), "line of its own"),
        (one(PLAIN, f"x\n--{BOUNDARY}\ny"), "inside a part"),
        (one(PLAIN, f"x --{BOUNDARY}"), "inside a part"),
        (one("", "x"), "headers of a part"),
        (one("nonsense", "x"), "cannot be read"),
        (one(PLAIN + "\r\n folded: x"), "cannot be read"),
        (one(PLAIN + "\r\nX : y"), "cannot be read"),
        (one(PLAIN + "\r\nX: a\nb"), "cannot be read"),
        (one(PLAIN + "\r\n" + PLAIN), "cannot be read"),
        (one(PLAIN + "\r\nContent-Transfer-Encoding: base64"), "encoded"),
        (one("Content-Type: text/plain"), "form-data"),
        (one('Content-Disposition: attachment; name="model"'), "form-data"),
        (one("Content-Disposition: form-data"), "no plain name"),
        (one('Content-Disposition: form-data; name=""'), "no plain name"),
        (one('Content-Disposition: form-data; name="mod el"'), "no plain name"),
        (one('Content-Disposition: form-data; name="mod%65l"'), "no plain name"),
        (one("Content-Disposition: form-data; name*=UTF-8''model"), "no plain name"),
        (one('Content-Disposition: form-data; name="a"; name*0="model"'), "no plain name"),
        (one('Content-Disposition: form-data; name="a"; name="model"'), "cannot be read"),
        (one('Content-Disposition: form-data; name="a"; NAME="model"'), "cannot be read"),
        (one('Content-Disposition: form-data; name="a"; filename="b\\"; name="model"'), "cannot be read"),
        (one('Content-Disposition: form-data; name="a" filename="b"'), "cannot be read"),
        (one('Content-Disposition: form-data; name="a'), "cannot be read"),
        (one("X: " + "y" * multipart.MAX_PART_HEADERS + "\r\n" + PLAIN), "no end of its headers"),
        (form([("a", b"", None)] * (multipart.MAX_PARTS + 1)), "more than 1000 parts"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(BadBody, match=why):
        multipart.parse(body, FORM_TYPE)


@pytest.mark.wire("6.14")
def test_what_clients_do_send_is_read() -> None:
    heads = [
        PLAIN,
        "content-disposition:form-data;name=model",
        PLAIN + "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 1",
        PLAIN + "\r\nContent-Transfer-Encoding: 8bit",
        PLAIN + "\r\nContent-Transfer-Encoding: binary",
    ]
    for head in heads:
        assert multipart.parse(one(head), FORM_TYPE).word("model") == "x"
    for filename in ('filename="a\\b.mp3"', 'filename="é%22.mp3"', "filename*=UTF-8''a.mp3", 'filename=""'):
        found = multipart.parse(one(f'Content-Disposition: form-data; name="file"; {filename}'), FORM_TYPE)
        assert [part.name for part in found.files()] == ["file"]
    assert multipart.parse(f"--{BOUNDARY}--\r\n".encode(), FORM_TYPE).parts == ()
    full = form([("a", b"", None)] * multipart.MAX_PARTS)
    assert len(multipart.parse(full, FORM_TYPE).parts) == multipart.MAX_PARTS


@pytest.mark.wire("6.14")
@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"application/json",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b"multipart/mixed; boundary=x",
        b"multipart/form-data; boundary=x; boundary=y",
        b"multipart/form-data; boundary=x; Boundary=y",
        b"multipart/form-data; boundary=a b",
        b"multipart/form-data; boundary=a,b",
        b'multipart/form-data; boundary="a ',
        b'multipart/form-data; boundary="a "',
        b"multipart/form-data boundary=x",
        b"multipart/form-data; boundary=x;",
        b"multipart/form-data; boundary=" + b"x" * 71,
    ],
)
def test_a_content_type_without_one_boundary_is_refused(content_type: bytes) -> None:
    found = re.search(rb'boundary="?([^;" ]*)', content_type)
    boundary = found[1] if found else b"x"
    body = b'--%b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--%b--\r\n' % (boundary, boundary)
    with pytest.raises(BadBody):
        multipart.parse(body, content_type)


@pytest.mark.wire("6.14")
@pytest.mark.parametrize(
    "content_type", [b'Multipart/Form-Data; charset=utf-8; BOUNDARY="a b"', b'multipart/form-data;boundary="a b"']
)
def test_a_boundary_may_be_quoted(content_type: bytes) -> None:
    body = b'--a b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--a b--'
    assert multipart.is_form(content_type)
    assert multipart.parse(body, content_type).model() == "m"
    assert not multipart.is_form(b"multipart/form-data-2; boundary=x")


@pytest.mark.wire("6.14")
@pytest.mark.timeout(20)
def test_no_header_takes_long_to_refuse() -> None:
    """Time here would be anyone's to take: a reader that went back and forth would need minutes for these."""
    spaces = " " * (multipart.MAX_PART_HEADERS - 200)
    heads = [f"X:{spaces}x", f"{PLAIN};{spaces}x", f'{PLAIN}; filename="{spaces}\\"', f"X{spaces}:", f"X:{spaces}\n"]
    for head in heads * 20:
        with pytest.raises(BadBody):
            multipart.parse(one(head), FORM_TYPE)


@pytest.mark.wire("1c.3")
@pytest.mark.parametrize(
    ("boundary", "body"),
    [
        (  # Python's SDK: fields first
            b"60f1203edbfc82670825beeba182b2ad",
            (
                b'--BB\r\nContent-Disposition: form-data; name="model"\r\n\r\nw\r\n--BB\r\n'
                b'Content-Disposition: form-data; name="file"; filename="t%22e\\.mp3"\r\n'
                b"Content-Type: audio/mpeg\r\n\r\n\x00\r\n\xff\r\n--BB--\r\n"
            ),
        ),
        (  # Node's: the file first
            b"----formdata-undici-059600124650",
            (
                b'--BB\r\nContent-Disposition: form-data; name="file"; filename="t%22\xc3\xb6.mp3"\r\n'
                b"Content-Type: audio/mpeg\r\n\r\n\x00\r\n\xff\r\n--BB\r\n"
                b'Content-Disposition: form-data; name="model"\r\n\r\nw\r\n--BB--\r\n'
            ),
        ),
    ],
)
def test_what_the_sdks_send_is_read(boundary: bytes, body: bytes) -> None:
    found = multipart.parse(body.replace(b"BB", boundary), b"multipart/form-data; boundary=" + boundary)
    assert found.model() == "w"
    assert [part.size for part in found.files()] == [4]
