"""Which modules are compiled: those of the request path whose coroutines, if there are any, wait in plain places only."""

import ast

from ledger import compiled

INTERPRETED = {
    "gateway/legs.py": "an async generator",
    "gateway/refusals.py": "an enum whose members are made by __init__",
}
"""What mypyc cannot compile."""

LEDGER = (
    "addresses",
    "call",
    "conversation",
    "holds",
    "hot",
    "keys",
    "keyspace",
    "lines",
    "link",
    "money",
    "price_tables",
    "prices",
    "request_id",
    "scripts",
    "tally",
)
"""Of the ledger's modules, those that a request passes through."""


def sources() -> list[str]:
    """Paths from the root."""
    gateway = [str(path.relative_to(compiled.ROOT)) for path in sorted((compiled.ROOT / "gateway").rglob("*.py"))]
    ours = [path for path in gateway if path not in INTERPRETED and not path.endswith(("__init__.py", "__main__.py"))]
    every = (*ours, *(f"ledger/{name}.py" for name in LEDGER))
    return [path for path in every if not awkward_lines(ast.parse((compiled.ROOT / path).read_text()))]


def awkward_lines(node: ast.AST, *, handling: bool = False) -> list[int]:
    """Where code waits while an exception is being handled, or in a way that does so unseen.

    mypyc keeps no state of handled exceptions for a coroutine: what waits there shows its exception to others, and forgets
    it (mypyc issue 1114). `async with` and `async for` wait in handlers of their own.
    """
    if isinstance(node, ast.AsyncWith | ast.AsyncFor) or (handling and isinstance(node, ast.Await | ast.Yield)):
        return [node.lineno]
    if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef | ast.Lambda):
        handling = False
    handlers = (*node.handlers, *node.finalbody) if isinstance(node, ast.Try) else ()
    return [
        line
        for each in ast.iter_child_nodes(node)
        for line in awkward_lines(each, handling=handling or each in handlers)
    ]


def unset_lines(tree: ast.AST) -> list[int]:
    """Where a final name is a tuple with nothing but fractions in it, which compiled code takes for one that was not set.

    mypyc keeps such a tuple unboxed and marks an unset one by a float that it then asks nobody about: each use is a
    NameError. `Final[tuple[float, ...]]` is kept as an object, and is right.
    """
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign)
        and ast.unparse(node.annotation).endswith("Final")
        and isinstance(node.value, ast.Tuple)
        and any(isinstance(each, ast.Constant) and isinstance(each.value, float) for each in ast.walk(node.value))
    ]
