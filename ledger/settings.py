"""Settings: read once from the environment (and a `.env` file), checked together, passed down; nobody else reads it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values

from ledger import vault

REDIS_SCHEMES = ("redis", "rediss", "redis+sentinel", "redis+cluster")


class SettingsError(Exception):
    """One or more settings cannot be used; `lines` says for each how to mend it."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; port 0 picks a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of every process. Secrets are kept out of the repr."""

    redis_url: str
    mongo_url: str
    data_dir: Path
    master_key: bytes | None = field(repr=False)
    master_key_previous: bytes | None = field(repr=False)
    admin_url: str
    upstream_ca_file: str
    upstream_transport: str
    gateway_addr: Address
    admin_addr: Address
    ops_addr: Address
    workers: int
    gateways: int
    admin_token: str = field(repr=False)
    allow_private_upstreams: bool
    grace_s: float
    drain_s: float
    replicas: int
    backlog_bound: int
    spill_dir: Path


def load(environ: Mapping[str, str] | None = None, *, need: tuple[str, ...] = ()) -> Settings:
    """The settings, or SettingsError with every problem in them. `need` names the variables that must not be empty."""
    given = (
        {**{k: v or "" for k, v in dotenv_values(".env").items()}, **os.environ} if environ is None else dict(environ)
    )
    reader = _Reader(given)
    replicated = reader.text("WEIR_REDIS_URL", "").startswith(("redis+sentinel://", "redis+cluster://"))
    data_dir = reader.folder("WEIR_DATA_DIR", ".weir")
    settings = Settings(
        redis_url=reader.url("WEIR_REDIS_URL", REDIS_SCHEMES),
        mongo_url=reader.url("WEIR_MONGO_URL", ("mongodb", "mongodb+srv")),
        data_dir=data_dir,
        master_key=reader.parsed("WEIR_MASTER_KEY", vault.parse_master_key),
        master_key_previous=reader.parsed("WEIR_MASTER_KEY_PREVIOUS", vault.parse_master_key),
        admin_url=reader.url("WEIR_ADMIN_URL", ("http", "https")).rstrip("/"),
        upstream_ca_file=reader.file("WEIR_UPSTREAM_CA_FILE"),
        upstream_transport=reader.choice("WEIR_UPSTREAM_TRANSPORT", ("fast", "httpx2")),
        gateway_addr=reader.address("WEIR_GATEWAY_ADDR", "127.0.0.1:8080"),
        admin_addr=reader.address("WEIR_ADMIN_ADDR", "127.0.0.1:8081"),
        ops_addr=reader.address("WEIR_OPS_ADDR", "127.0.0.1:9464"),
        workers=reader.integer("WEIR_WORKERS", 1, least=1, most=256),
        gateways=reader.integer("WEIR_GATEWAYS", 1, least=1, most=10_000),
        admin_token=reader.text("WEIR_ADMIN_TOKEN", ""),
        allow_private_upstreams=reader.switch("WEIR_ALLOW_PRIVATE_UPSTREAMS"),
        grace_s=reader.number("WEIR_GRACE_S", 30, least=0, most=3600),
        drain_s=reader.number("WEIR_DRAIN_S", 300, least=0, most=3600),
        replicas=reader.integer("WEIR_REPLICAS", 1 if replicated else 0, least=0, most=10),
        backlog_bound=reader.integer("WEIR_BACKLOG_BOUND", 1_000_000, least=1, most=10**9),
        spill_dir=reader.folder("WEIR_SPILL_DIR", str(data_dir / "spill")),
    )
    for name in need:
        if not given.get(name, "").strip():
            reader.problem(name, f"is not set; {_NEEDED[name]}")
    if reader.problems:
        raise SettingsError(reader.problems)
    return settings


_NEEDED = {
    "WEIR_REDIS_URL": "give the URL of your Redis or Valkey, such as redis://127.0.0.1:6379, or run `weir up`",
    "WEIR_MONGO_URL": "give a MongoDB replica set, such as mongodb://127.0.0.1:27017/?replicaSet=rs0, or run `weir up`",
    "WEIR_MASTER_KEY": "make one with: head -c 32 /dev/urandom | base64",
    "WEIR_ADMIN_TOKEN": "choose the first owner token, such as the output of: openssl rand -hex 32",
}


class _Reader:
    """Collects every problem instead of stopping at the first."""

    def __init__(self, given: dict[str, str]) -> None:
        self.given = given
        self.problems: list[str] = []

    def problem(self, name: str, what: str) -> None:
        self.problems.append(f"{name} {what}")

    def text(self, name: str, default: str) -> str:
        return self.given.get(name, "").strip() or default

    def parsed(self, name: str, parse: Callable[[str], Any]) -> Any:
        text = self.text(name, "")
        try:
            return parse(text) if text else None
        except ValueError as error:
            self.problem(name, str(error))
            return None

    def url(self, name: str, schemes: tuple[str, ...]) -> str:
        text = self.text(name, "")
        try:
            parts = urlsplit(text)
        except ValueError:  # a bracket that is not closed
            parts = urlsplit("")
        if text and (parts.scheme not in schemes or not parts.netloc):
            self.problem(name, f"is not a URL that starts with {' or '.join(s + '://' for s in schemes)}")
        return text

    def folder(self, name: str, default: str) -> Path:
        text = self.text(name, default)
        try:
            return Path(text).expanduser()
        except RuntimeError:
            self.problem(name, f"names {text}, whose user has no home directory")
            return Path(default)

    def file(self, name: str) -> str:
        text = self.text(name, "")
        if text and not Path(text).is_file():
            self.problem(name, f"names {text}, which is not a file")
        return text

    def address(self, name: str, default: str) -> Address:
        host, _, port = self.text(name, default).rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            self.problem(name, f"must be host:port, such as {default}")
            return Address("127.0.0.1", 0)
        return Address(host.strip("[]"), int(port))

    def number(self, name: str, default: float, *, least: float, most: float) -> float:
        text = self.text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            self.problem(name, f"must be a number from {least:g} to {most:g}, not {text!r}")
            return default
        return value

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        value = self.number(name, default, least=least, most=most)
        if value != int(value):
            self.problem(name, f"must be a whole number, not {value:g}")
        return int(value)

    def choice(self, name: str, words: tuple[str, ...]) -> str:
        """One of a few words; the first is the default."""
        text = self.text(name, words[0]).lower()
        if text not in words:
            self.problem(name, f"must be {' or '.join(words)}, not {text!r}")
        return text

    def switch(self, name: str) -> bool:
        text = self.text(name, "off").lower()
        if text not in ("on", "off", "1", "0", "true", "false", "yes", "no"):
            self.problem(name, f"must be on or off, not {text!r}")
        return text in ("on", "1", "true", "yes")
