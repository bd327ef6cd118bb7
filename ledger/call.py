"""One call to Redis, and the future that will have its answer."""

import asyncio
import hashlib
from typing import Any

from ledger import compiled


class Script:
    """One Lua file with its preludes. The SHA pins its meaning to this build, so two releases can run side by side."""

    def __init__(self, name: str, *preludes: str) -> None:
        folder = compiled.ROOT / "ledger" / "lua"
        shebang, _, body = (folder / f"{name}.lua").read_text().partition("\n")
        shared = [(folder / f"{prelude}.lua").read_text() for prelude in ("prelude", *preludes)]
        self.name = name
        self.text = "\n".join([shebang, *shared, body]).encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


class Call:
    """A command's words, or a script with its keys and arguments."""

    __slots__ = ("args", "future", "script")

    def __init__(self, script: Script | None, args: tuple[Any, ...], future: asyncio.Future[Any]) -> None:
        self.script = script
        self.args = args
        self.future = future

    def words(self) -> tuple[Any, ...]:
        return ("EVALSHA", self.script.sha, *self.args) if self.script else self.args

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
