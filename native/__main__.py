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
from native import modules

NAME = "weir"
# Names and lines are kept in tracebacks by mypyc itself, so no debug information is needed.
FLAGS = ("-O3", "-g0", "-fPIC", "-fno-plt", "-fvisibility=hidden", "-fwrapv", "-DNDEBUG", "-w")


class CannotCompileError(Exception):
    """One line for the person who asked."""


def main() -> int:
    target = compiled.folder()
    if target.is_dir():
        print("weir: this source is compiled already")
        return 0
    print("weir: compiling the request path, which takes about a minute")
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
        for extension in extensions:
            make(work, extension)
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


def make(work: Path, extension: Any) -> None:
    """Compile its sources, some at once, and link them."""
    compiler = os.environ.get("CC", "gcc")
    include = [f"-I{folder}" for folder in (sysconfig.get_path("include"), *extension.include_dirs)]

    def compile_one(numbered: tuple[int, str]) -> str:
        number, source = numbered
        made = work / "o" / f"{extension.name}.{number}.o"
        made.parent.mkdir(exist_ok=True)
        run([compiler, *FLAGS, *include, "-c", source, "-o", str(made)])
        return str(made)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compile_one, enumerate(extension.sources)))
    path = (work / "lib").joinpath(*extension.name.split(".")).with_suffix(compiled.SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    run([compiler, "-shared", *objects, "-o", str(path)])


def run(command: list[str]) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except OSError as error:
        raise CannotCompileError(f"the C compiler {command[0]} cannot be run ({error.strerror}); set CC") from None
    except subprocess.CalledProcessError as error:
        raise CannotCompileError(f"the C compiler failed: {error.stderr.strip()}") from None


if __name__ == "__main__":
    sys.exit(main())
