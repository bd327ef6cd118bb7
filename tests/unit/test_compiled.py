"""Compiled modules are those of the source as it is, or none; and what is compiled waits where mypyc can wait."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ledger import compiled
from native import modules, training
from native.__main__ import LEARNED, CannotCompileError, learn
from native.__main__ import run as run_compiler
from native.training import CannotTrainError

WHERE = "import ledger.holds; print(ledger.holds.__file__)"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The source by itself, as far as it decides what is compiled, and `ledger.holds` as if it had been."""
    for package in ("gateway", "ledger", "native"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(compiled.ROOT / package, tmp_path / package, ignore=ignored)
    built = compiled.folder(tmp_path) / "ledger" / f"holds{compiled.SUFFIX}"
    built.parent.mkdir(parents=True)
    built.write_bytes(b"no library")
    return tmp_path


def run(copy: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("WEIR_COMPILED", "PYTHONPATH")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy,
        env={**kept, "PYTHONPATH": str(copy), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_there_is_imported(copy: Path) -> None:
    """No library is in that file, and the loader says so: it is what was taken."""
    done = run(copy, WHERE)
    assert done.returncode == 1
    assert f"holds{compiled.SUFFIX}: " in done.stderr


@pytest.mark.parametrize("changed", ["ledger/money.py", "gateway/app.py", "native/modules.py"])
def test_any_other_source_is_interpreted(copy: Path, changed: str) -> None:
    path = copy / changed
    path.write_text(path.read_text() + "\n# another\n")
    done = run(copy, WHERE)
    assert (done.returncode, done.stdout) == (0, f"{copy / 'ledger' / 'holds.py'}\n")


def test_a_source_more_is_another_source(copy: Path) -> None:
    before = compiled.folder(copy)
    (copy / "gateway" / "more.py").write_text("")
    assert compiled.folder(copy) != before


def test_it_can_do_without(copy: Path) -> None:
    done = run(copy, WHERE, WEIR_COMPILED="0")
    assert (done.returncode, done.stdout) == (0, f"{copy / 'ledger' / 'holds.py'}\n")


def test_it_can_insist(copy: Path) -> None:
    shutil.rmtree(copy / compiled.BUILDS)
    done = run(copy, WHERE, WEIR_COMPILED="1")
    assert done.returncode == 1
    assert done.stderr == "weir: WEIR_COMPILED=1, and nothing is compiled from this source; run make compiled\n"


def test_what_is_neither_is_an_operators_mistake(copy: Path) -> None:
    done = run(copy, WHERE, WEIR_COMPILED="yes")
    assert (done.returncode, done.stderr) == (1, "weir: WEIR_COMPILED must be 0 or 1\n")


def test_what_is_named_is_there() -> None:
    """A module that was renamed is not left out in silence."""
    for path in (*modules.INTERPRETED, *(f"ledger/{name}.py" for name in modules.LEDGER)):
        assert (compiled.ROOT / path).is_file(), path


def test_all_that_a_request_passes_through_is_compiled() -> None:
    """Whoever waits in a handler again, in one of these, makes every request dearer and hears of it here."""
    sources = set(modules.sources())
    path = (
        "admission",
        "bill",
        "cycle",
        "headers",
        "intake",
        "listener",
        "proxy",
        "quotes",
        "relay",
        "settler",
        "tickets",
    )
    upstream = ("attempts", "client", "connection", "health", "pool", "transport", "wire")
    assert sources >= {f"gateway/{name}.py" for name in path}
    assert sources >= {f"gateway/upstream/{name}.py" for name in upstream}
    assert sources >= {f"ledger/{name}.py" for name in modules.LEDGER}


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("async def a():\n  try:\n    await b()\n  except E:\n    c()\n  await d()", []),
        ("async def a():\n  try:\n    b()\n  except E:\n    await c()", [5]),
        ("async def a():\n  try:\n    b()\n  finally:\n    await c()", [5]),
        ("async def a():\n  try:\n    b()\n  finally:\n    if c:\n      return [await d()]", [6]),
        ("async def a():\n  try:\n    b()\n  except E:\n    try:\n      await c()\n    except F:\n      pass", [6]),
        ("async def a():\n  try:\n    b()\n  except E:\n    async def c():\n      await d()", []),
        ("async def a():\n  async with b:\n    c()", [2]),
        ("async def a():\n  async for b in c:\n    d()", [2]),
        ("def a():\n  try:\n    b()\n  except E:\n    yield c", [5]),
        ("def a():\n  for b in c:\n    yield b", []),
        ("async def a():\n  with b:\n    await c()", []),
    ],
)
def test_who_waits_where_it_cannot_be_compiled(code: str, lines: list[int]) -> None:
    assert modules.awkward_lines(ast.parse(code)) == lines


def test_no_final_name_is_taken_for_one_that_was_not_set() -> None:
    """The waits between tries of a settle were such a tuple once: compiled, the first try that failed was the last."""
    trees = {path: ast.parse((compiled.ROOT / path).read_text()) for path in modules.sources()}
    assert {path: lines for path, tree in trees.items() if (lines := modules.unset_lines(tree))} == {}


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("A: Final = (0.5, 1.0)", [1]),
        ("A = 1\nB: typing.Final = ((0.5, 0.7), (1.0, 2.0))", [2]),
        ("A: Final[tuple[float, ...]] = (0.5, 1.0)", []),
        ("A: Final = (1, 2)", []),
        ("A: Final = 0.5", []),
    ],
)
def test_which_final_names_those_are(code: str, lines: list[int]) -> None:
    assert modules.unset_lines(ast.parse(code)) == lines


@pytest.mark.parametrize(
    ("written", "error", "said"),
    [
        (True, None, ""),
        (False, None, "no process wrote down what it counted"),
        (True, CannotTrainError("the demo did not start: no"), "the demo did not start: no"),
    ],
)
def test_without_training_it_is_compiled_all_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    written: bool,
    error: Exception | None,
    said: str,
) -> None:
    def trained(_source: Path) -> None:
        if written:
            (tmp_path / "o").mkdir()
            (tmp_path / "o" / "weir.0.gcda").touch()
        if error is not None:
            raise error

    monkeypatch.setattr(training, "train", trained)
    assert learn(tmp_path, []) == (() if said else LEARNED)
    err = capsys.readouterr().err
    assert err == (f"weir: compiled without knowing what happens often: {said}\n" if said else "")


def test_another_compiler_is_not_asked_to_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "echo")
    assert learn(tmp_path, []) == ()


def test_a_compiler_that_is_not_there_is_one_readable_line() -> None:
    with pytest.raises(CannotCompileError, match=r"no-such-compiler cannot be run .*; set CC"):
        run_compiler(["no-such-compiler", "-c", "a.c"])


def test_what_the_compiler_says_is_passed_on() -> None:
    with pytest.raises(CannotCompileError, match=r"the C compiler failed: .*no-such-file"):
        run_compiler(["gcc", "-c", "no-such-file.c"])
