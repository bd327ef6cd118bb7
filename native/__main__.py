"""`python -m native` (`make compiled`): what the request path runs, into `.compiled/`."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ledger import compiled
from native import modules, training

NAME = "weir"
# Names and lines are kept in tracebacks by mypyc itself, so no debug information is needed.
FLAGS = ("-O3", "-g0", "-fPIC", "-fno-plt", "-fvisibility=hidden", "-fwrapv", "-DNDEBUG", "-w")


COUNTING = ("-fprofile-generate",)
# What training did not come to is compiled as it would be without.
LEARNED = ("-fprofile-use", "-fprofile-partial-training")


class CannotCompileError(Exception):
    """One line for the person who asked."""


def main() -> int:
    target = compiled.folder()
    if target.is_dir():
        print("weir: this source is compiled already")
        return 0
    print("weir: compiling the request path twice, with a demo in between that shows what it does; some two minutes")
    try:
        built = build(target)
    except CannotCompileError as error:
        print(f"weir: {error}", file=sys.stderr)
        return 1
    print(f"weir: {built} modules of the request path are compiled; WEIR_COMPILED=0 does without them")
    return 0


def build(target: Path) -> int:
    """Compile into a new folder, which gets its name when all is there. The number of modules.

    The build before stays, for processes that were started from it; older ones go.
    """
    builds = target.parent
    builds.mkdir(exist_ok=True)
    older = sorted(builds.iterdir(), key=lambda path: path.stat().st_mtime)
    for each in older[:-1]:
        shutil.rmtree(each)
    work = Path(tempfile.mkdtemp(prefix="unfinished-", dir=builds))
    try:
        extensions = translate(work)
        how = learn(work, extensions)
        for extension in extensions:
            make(work, extension, work / "lib", how)
        (work / "lib").rename(target)
    finally:
        shutil.rmtree(work)
    return len(extensions) - 1  # beside the modules, the library that has their code


def translate(work: Path) -> list[Any]:
    """The C of each library below `work`, as distutils' extensions: one with all code, and an entrance for each module."""
    from mypyc.build import mypycify

    said = io.StringIO()
    try:
        with contextlib.chdir(compiled.ROOT), contextlib.redirect_stdout(said):  # mypyc names modules by paths
            return list(
                mypycify(
                    ["--config-file", "pyproject.toml", *modules.sources()],
                    group_name=NAME,
                    multi_file=True,
                    opt_level="3",
                    debug_level="0",
                    target_dir=str(work / "c"),
                )
            )
    except SystemExit:
        lines = said.getvalue().splitlines()
        errors = [line for line in lines if ": error:" in line] or lines[-1:]  # its own failures have another form
        raise CannotCompileError("\n".join(["mypyc cannot compile this source:", *errors])) from None


def learn(work: Path, extensions: list[Any]) -> tuple[str, ...]:
    """Train with modules that count what they do; how to compile with what they found, beside the objects."""
    if "Free Software Foundation" not in run([compiler(), "--version"]):
        return ()  # others count in forms of their own
    source = work / "training"
    training.copy_source(source)
    for extension in extensions:
        make(work, extension, compiled.folder(source), COUNTING)
    try:
        training.train(source)
        if not any((work / "o").glob("*.gcda")):
            raise training.CannotTrainError("no process wrote down what it counted")
    except training.CannotTrainError as error:
        print(f"weir: compiled without knowing what happens often: {error}", file=sys.stderr)
        return ()
    return LEARNED


def make(work: Path, extension: Any, into: Path, how: tuple[str, ...]) -> None:
    """Compile its sources, some at once, and link them."""
    include = [f"-I{folder}" for folder in (sysconfig.get_path("include"), *extension.include_dirs)]

    def compile_one(numbered: tuple[int, str]) -> str:
        number, source = numbered
        made = work / "o" / f"{extension.name}.{number}.o"
        made.parent.mkdir(exist_ok=True)
        run([compiler(), *FLAGS, *how, *include, "-c", source, "-o", str(made)])
        return str(made)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compile_one, enumerate(extension.sources)))
    path = into.joinpath(*extension.name.split(".")).with_suffix(compiled.SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    run([compiler(), "-shared", *how, *objects, "-o", str(path)])


def compiler() -> str:
    return os.environ.get("CC", "gcc")


def run(command: list[str]) -> str:
    """What it printed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except OSError as error:
        raise CannotCompileError(f"the C compiler {command[0]} cannot be run ({error.strerror}); set CC") from None
    except subprocess.CalledProcessError as error:
        raise CannotCompileError(f"the C compiler failed: {error.stderr.strip()}") from None


if __name__ == "__main__":
    sys.exit(main())
