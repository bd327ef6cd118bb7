"""Where `make compiled` was run, the request path is imported as machine code instead of being interpreted.

The compiled modules lie in a folder that is named by a digest of the source. What was compiled from any other source is not
found, so nothing is ever stale, and where nothing is found everything runs from the source. `WEIR_COMPILED=0` does without
compiled modules, and `WEIR_COMPILED=1` does not start without them.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
BUILDS = ".compiled"
SUFFIX = EXTENSION_SUFFIXES[0]  # names the interpreter and the machine
_SOURCES = ("gateway", "ledger", "native")

found = 0
"""How many compiled modules this process uses, as far as it needs them."""


def folder(root: Path = ROOT) -> Path:
    """Where the modules that were compiled from this source are, or would be."""
    digest = hashlib.sha256(SUFFIX.encode())
    for package in _SOURCES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"\n{path.relative_to(root)}\n".encode())
            digest.update(path.read_bytes())
    return root / BUILDS / digest.hexdigest()[:16]


def modules(root: Path = ROOT) -> dict[str, str]:
    """The files of the modules that are there, by name."""
    if not (root / BUILDS).is_dir():
        return {}
    here = folder(root)
    return {".".join(path.relative_to(here).parts).removesuffix(SUFFIX): str(path) for path in here.rglob(f"*{SUFFIX}")}


def install() -> None:
    """Let whatever is imported from now on be the compiled module where there is one."""
    global found
    wanted = os.environ.get("WEIR_COMPILED", "")
    if wanted not in ("", "0", "1"):
        raise SystemExit("weir: WEIR_COMPILED must be 0 or 1")
    files = {} if wanted == "0" else modules()
    if wanted == "1" and not files:
        raise SystemExit("weir: WEIR_COMPILED=1, and nothing is compiled from this source; run make compiled")
    if files:
        sys.meta_path.insert(0, Finder(files))
    found = max(len(files) - 1, 0)  # beside the modules, the library that has their code


class Finder(MetaPathFinder):
    """Finds these modules, by their files."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        file = self._files.get(name)
        return None if file is None else spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file))
