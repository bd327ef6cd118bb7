"""The paths that are counted: under callgrind, `python -m bench.guard.paths` writes a dump for each."""

import gc
from collections.abc import Callable

from bench.contest import Way
from bench.guard import valgrind
from bench.upstreams import nginx, writer
from gateway import quotes
from gateway.dialects.openai.chat import Chat
from gateway.dialects.shape import Call
from ledger import keys
from ledger.catalogue import Model
from ledger.price_record import Price
from ledger.prices import PPM, cost_nanos

_BODY = Way("", "").body()
_LARGE = Way("", "").body(size=20_000)
_STREAMED = Way("", "").body(stream=True)
_MODEL = Model(
    name="gpt-4.1",
    targets=(),
    price=Price(version=1, rates={"input": 2_000_000, "output": 8_000_000}),
    max_output_tokens=32_768,
    max_input_tokens=1_000_000,
)
_KEY = b"weir_0aoxrr6nagirm2_ySR5YJQL65o9nvagNYHqHtAWq9XcQNKo0WtLMn"  # well-formed, and nobody's
_CHAT = Chat()
_ASKED = _CHAT.read(Call(_BODY))
_ASKED_STREAM = _CHAT.read(Call(_STREAMED))


def read() -> None:
    """A chat request of 300 bytes, read and written for the provider."""
    call = Call(_BODY)
    asked = _CHAT.read(call)
    _CHAT.write(call, asked, model="gpt-4.1-2025-04-14", cap=None)


def read_large() -> None:
    """The same with 20 KB of prose."""
    call = Call(_LARGE)
    asked = _CHAT.read(call)
    _CHAT.write(call, asked, model="gpt-4.1-2025-04-14", cap=None)


def quote() -> None:
    """What it can cost at most."""
    quotes.quote(_MODEL, _ASKED, len(_BODY), PPM)


def meter() -> None:
    """A whole answer, metered and priced."""
    meter = _CHAT.meter(_ASKED, b"application/json")
    meter.feed(nginx.ANSWER)
    meter.finish()
    usage = meter.usage()
    assert usage is not None
    cost_nanos(_MODEL.price, usage)


def meter_stream() -> None:
    """A hundred chunks of a stream, and its usage."""
    meter = _CHAT.meter(_ASKED_STREAM, b"text/event-stream")
    for _ in range(100):
        meter.feed(writer.CHUNK)
    meter.feed(writer.ending(100))
    meter.finish()
    assert meter.usage() is not None


def key() -> None:
    """A caller's key: its form, its checksum, its digest."""
    assert keys.parse(_KEY) is not None
    keys.digest(b"k" * 32, _KEY)


PATHS: dict[str, Callable[[], None]] = {
    "read a request": read,
    "read 20 KB": read_large,
    "quote": quote,
    "meter an answer": meter,
    "meter 100 chunks": meter_stream,
    "check a key": key,
}

WALKS = 20
_WARM = 200  # the interpreter has learned what it will


def nothing() -> None:
    """What counting costs by itself."""


def main() -> None:
    requests = valgrind.Requests()
    gc.disable()  # when it runs depends on all that ran before
    for name, walk in {"nothing": nothing, **PATHS}.items():
        for _ in range(_WARM):
            walk()
        requests.request(valgrind.START)
        requests.request(valgrind.ZERO)
        for _ in range(WALKS):
            walk()
        requests.request(valgrind.STOP)
        requests.request(valgrind.DUMP_AT, name.encode())


if __name__ == "__main__":
    main()
