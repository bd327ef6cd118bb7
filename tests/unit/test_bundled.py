"""A bundled server that cannot run here is one line that says what to install or set instead."""

import ctypes.util
import sys
from pathlib import Path

import pytest

from weir import bundled
from weir.bundled import BundleError, Mongod, Valkey


def test_both_are_found_on_this_machine() -> None:
    assert bundled.valkey_binary().name == "valkey-server"
    assert bundled.mongod_binary().name == "mongod"


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None if name == "curl" else name)
    with pytest.raises(BundleError, match=r"needs libcurl4: apt-get install libcurl4, or set WEIR_MONGO_URL"):
        bundled.mongod_binary()


@pytest.mark.parametrize("find", [bundled.valkey_binary, bundled.mongod_binary])
def test_another_platform_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, find: object) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(BundleError, match=r"set WEIR_(REDIS|MONGO)_URL"):
        find()  # type: ignore[operator]


def test_a_wheel_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "_in_wheel", lambda *_parts: None)
    with pytest.raises(BundleError, match="WEIR_REDIS_URL"):
        bundled.valkey_binary()


def test_a_cpu_without_avx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "_cpu_flags", lambda: "flags: sse4_2")
    with pytest.raises(BundleError, match="AVX"):
        bundled.mongod_binary()


def test_durable_settings(tmp_path: Path) -> None:
    valkey = " ".join(Valkey(tmp_path / "v", 1).command())
    assert "--appendonly yes --appendfsync always" in valkey
    assert "--maxmemory-policy noeviction" in valkey
    assert "--bind 127.0.0.1" in valkey
    assert "--bind_ip 127.0.0.1 --replSet weir" in " ".join(Mongod(tmp_path / "m", 1).command())


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("libjemalloc.so.2", {"LD_PRELOAD": "libjemalloc.so.2"}),
        (None, {}),
    ],
)
def test_valkey_has_the_best_allocator_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str | None, expected: dict[str, str]
) -> None:
    for name in ("LD_PRELOAD", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: found if name == "jemalloc" else None)
    assert Valkey(tmp_path, 1).environment == {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1000", **expected}


@pytest.mark.parametrize("name", ["LD_PRELOAD", "GLIBC_TUNABLES"])
def test_an_operators_own_malloc_settings_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv(name, "anything")
    assert Valkey(tmp_path, 1).environment == {}
