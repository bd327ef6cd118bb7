"""The mutants: patches that each remove one mechanism, and the test that must notice. One TOML file a mutant."""

import ast
import re
import tomllib
from pathlib import Path

import msgspec

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
# The list; each is the name of a file here, and none may go missing.
MECHANISMS = (
    "repeat-check", "hold-release", "late-path", "fence", "digest-compare", "adopt", "lease-renewal", "version-check",
    "deny-on-full-memory", "seq-increment", "backlog-bound", "barrier-before-forgetting", "statement-before-purge",
)  # fmt: skip


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`old` stands exactly once in `file`; with `new` in its place, `test` fails and what it prints matches `says`."""

    name: str
    why: str
    file: str
    old: str
    new: str
    test: str
    says: str

    def patched(self, root: Path) -> str:
        """The file's text with the mechanism removed; ValueError if it cannot be."""
        text = (root / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"`old` stands {text.count(self.old)} times in {self.file}, not once")
        return text.replace(self.old, self.new)


def load() -> list[Mutant]:
    """All of them, by name; msgspec.ValidationError names what a file lacks."""
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        fields = tomllib.loads(path.read_text())
        found.append(msgspec.convert({"name": path.stem, **fields}, Mutant))
    return found


def problems(mutants: list[Mutant], root: Path = ROOT) -> list[str]:
    """Why these could not be run: patches that do not apply, tests that are not there."""
    found = [f"{name}: the mechanism has no mutant" for name in MECHANISMS if name not in {m.name for m in mutants}]
    tests: dict[str, set[str]] = {}
    for mutant in mutants:
        try:
            text = mutant.patched(root)
            if mutant.file.endswith(".py"):
                compile(text, mutant.file, "exec")
            re.compile(mutant.says)
        except (OSError, ValueError, SyntaxError, re.error) as error:
            found.append(f"{mutant.name}: {error}")
        if mutant.new == mutant.old:
            found.append(f"{mutant.name}: changes nothing")
        file, _, test = mutant.test.partition("::")
        if file not in tests:
            tests[file] = _tests_in(root / file)
        if test.partition("[")[0] not in tests[file]:
            found.append(f"{mutant.name}: there is no test {mutant.test}")
    return found


def _tests_in(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    body = ast.parse(path.read_text()).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
