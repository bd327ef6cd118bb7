"""The data directory: what `weir up` keeps between starts, and the lock that one of them holds."""

import base64
import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import Any

from weir.bundled import free_port, is_free


class HomeError(Exception):
    """The data directory cannot be used; one line that says why."""


class Home:
    """`WEIR_DATA_DIR`: secrets (0600), remembered ports, logs, and the servers' own folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise HomeError(
                f"WEIR_DATA_DIR {folder} cannot be written ({error.strerror}); choose a folder that can"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HomeError(f"Weir is already running on {folder}; stop it, or set WEIR_DATA_DIR to another") from None

    @property
    def logs(self) -> Path:
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True, mode=0o700)
        return logs

    def secret(self, name: str, given: str | None = None) -> str:
        """A secret that was made at the first start, or the one that is given."""
        path = self.folder / name
        if given:
            return given
        if path.exists():
            return path.read_text().strip()
        made = base64.b64encode(secrets.token_bytes(32)).decode() if name == "master.key" else secrets.token_hex(32)
        self.write(name, made)
        return made

    def write(self, name: str, text: str) -> None:
        """Write a small file whole, for the owner's eyes only."""
        path = self.folder / name
        beside = path.with_suffix(".new")
        descriptor = os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)

    def remembered(self, name: str) -> dict[str, Any]:
        """What was written as JSON under this name; empty at first."""
        path = self.folder / name
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def port(self, server: str) -> int:
        """The port a bundled server had last time, or a free one if it had none or somebody else has it now."""
        ports = self.remembered("ports.json")
        port = ports.get(server)
        if not isinstance(port, int) or not is_free(port):
            port = free_port()
            self.write("ports.json", json.dumps({**ports, server: port}))
        return port
