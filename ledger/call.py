"""One call to Redis, as the bytes that it is sent as, and the future that will have its answer."""

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Any, Final

from hiredis import pack_command

from ledger import compiled

_COUNTS: Final = [b"*%d" % count for count in range(128)]
_SIZES: Final = [b"\r\n$%d\r\n" % size for size in range(1024)]


class Script:
    """One Lua file with its preludes. The SHA pins its meaning to this build, so two releases can run side by side."""

    def __init__(self, name: str, *preludes: str) -> None:
        folder = compiled.ROOT / "ledger" / "lua"
        shebang, _, body = (folder / f"{name}.lua").read_text().partition("\n")
        shared = [(folder / f"{prelude}.lua").read_text() for prelude in ("prelude", *preludes)]
        self.name = name
        self.text = "\n".join([shebang, *shared, body]).encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()
        self.head = b"\r\n$7\r\nEVALSHA\r\n$40\r\n%b" % self.sha


class Call:
    """A command's words, or a script with its keys and arguments."""

    __slots__ = ("args", "future", "script")

    def __init__(self, script: Script | None, args: tuple[Any, ...], future: asyncio.Future[Any]) -> None:
        self.script = script
        self.args = args
        self.future = future

    def words(self) -> tuple[Any, ...]:
        return ("EVALSHA", self.script.sha, *self.args) if self.script else self.args

    def packed(self) -> bytes:
        """What is sent: an array of bulk strings (RESP). TypeError for a word that is no str, bytes or int.

        hiredis packs in C, which interpreted code cannot do better, and takes a `sprintf` a word; compiled code takes none.
        """
        if not compiled.found:
            packed: bytes = pack_command(self.words())
            return packed
        script = self.script
        return pack(self.args) if script is None else pack(self.args, script.head, 2)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def pack(words: Iterable[Any], head: bytes = b"", before: int = 0) -> bytes:
    """Words as Redis reads them, behind as many in the `head`, which are packed already."""
    parts = [head]
    for word in words:
        if isinstance(word, bytes):
            data = word
        elif isinstance(word, str):
            data = word.encode()
        elif type(word) is int:
            data = str(word).encode()
        else:
            raise TypeError(type(word).__name__)
        size = len(data)
        parts.append(_SIZES[size] if size < len(_SIZES) else b"\r\n$%d\r\n" % size)
        parts.append(data)
    count = before + len(parts) // 2
    start = _COUNTS[count] if count < len(_COUNTS) else b"*%d" % count
    return start + b"".join(parts) + b"\r\n"
