"""Programs of Debian that the suite needs, unpacked beside the virtual environment: nothing is installed or started."""

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

_FOLDER = Path(sys.prefix) / "faults"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"


@cache
def unpacked(*packages: str) -> Path:
    """The root of these packages' files, fetched with apt-get once; it fails where that cannot be done."""
    root = _FOLDER / packages[0]
    if root.is_dir():
        return root
    fetched = Path(tempfile.mkdtemp(prefix="weir-faults-"))
    try:
        command = ["apt-get", "-qq", "download", *packages]
        if subprocess.run(command, cwd=fetched, capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
            done = subprocess.run(command, cwd=fetched, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"the fault suite needs {' '.join(packages)} of Debian: {done.stderr}"
        for package in fetched.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(fetched / "root")], check=True)
        _FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.move(fetched / "root", root)
    finally:
        shutil.rmtree(fetched)
    return root


def redis_server() -> tuple[Path, dict[str, str]]:
    """Debian's redis-server and the environment that it runs in."""
    root = unpacked("redis-tools", "libjemalloc2", "liblzf1", "libatomic1")
    program = root / "usr/bin/redis-server"
    if not program.exists():
        program.symlink_to("redis-check-rdb")  # as redis-server's own package does
    return program, {"LD_LIBRARY_PATH": str(root / _LIBRARIES)}


def libfaketime() -> Path:
    """The library that shows a process another time."""
    return unpacked("libfaketime") / _LIBRARIES / "faketime" / "libfaketime.so.1"


@cache
def compiled(name: str) -> Path:
    """A library of ours to preload: `synced` records every fsync that has really ended, `clock` shows another time."""
    source = Path(__file__).with_name(f"{name}.c")
    library = Path(tempfile.mkdtemp(prefix="weir-faults-")) / f"{name}.so"
    assert shutil.which("gcc"), "the fault suite needs gcc: apt-get install gcc libc6-dev"
    command = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library
