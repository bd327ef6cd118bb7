"""`python -m tests.rules`: which test holds which rule of docs/wire.md. With `--check`, fails if a rule has none.

Tests name their rules in a marker, `@pytest.mark.wire("2b.3", "5.3")`; a module that is about one rule sets `pytestmark`.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
_RULE = re.compile(r"^- \*\*(\w+\.\d+)\*\*", re.MULTILINE)


def rules() -> list[str]:
    """The numbers of docs/wire.md, in its order."""
    return _RULE.findall((ROOT / "docs/wire.md").read_text())


def holders() -> dict[str, list[str]]:
    """Tests by the number that they name."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        place = path.relative_to(ROOT).as_posix()
        for name, number in _marks(ast.parse(path.read_text())):
            found[number].append(f"{place}::{name}" if name else place)
    return found


def _marks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets):
            yield from (("", number) for number in _numbers(node.value))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for decorator in node.decorator_list:
                yield from ((node.name, number) for number in _numbers(decorator))


def _numbers(node: ast.expr) -> Iterator[str]:
    """The words of every `pytest.mark.wire(...)` inside an expression."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == "wire":
            yield from (
                word.value for word in each.args if isinstance(word, ast.Constant) and isinstance(word.value, str)
            )


def main(arguments: list[str]) -> int:
    numbers, held = rules(), holders()
    missing = [number for number in numbers if number not in held]
    unknown = sorted(set(held) - set(numbers))
    if "--check" not in arguments:
        for number in numbers:
            print(number, *held.get(number, ["nobody"]), sep="\n    ")
    for number in missing:
        print(f"docs/wire.md {number}: no test names this rule")
    for number in unknown:
        print(f"{held[number][0]} names rule {number}, which docs/wire.md does not have")
    if not missing and not unknown:
        print(f"{len(numbers)} rules of the wire, each with a test")
    return 1 if missing or unknown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
