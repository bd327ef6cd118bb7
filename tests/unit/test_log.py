"""Logs cannot hold content, whatever is thrown at them."""

import asyncio
import io
import json
import logging
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from ledger import log

CANARY = "canary-7391"


@pytest.fixture
def lines() -> Iterator[Any]:
    """What was logged so far, parsed; everything global is put back afterwards."""
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = io.StringIO()
    log.setup("test", stream=out)

    def read() -> list[dict[str, Any]]:
        assert CANARY not in out.getvalue()
        return [json.loads(line) for line in out.getvalue().splitlines()]

    yield read
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = hooks
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def fail() -> None:
    prompt = CANARY
    raise ValueError(f"cannot read {prompt}")


def caught(error: type[BaseException] = ValueError) -> BaseException:
    try:
        fail()
    except error as found:
        return found
    raise AssertionError


def test_a_known_field_is_written_and_an_unknown_one_dropped(lines: Any) -> None:
    log.get().info("key_revoked", account="a1", prompt=CANARY, body={"x": CANARY}, status=200, outcome=None)
    [line] = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "key_revoked", "level": "info", "process": "test", "account": "a1", "status": 200, "outcome": None,
    }  # fmt: skip


@given(st.dictionaries(st.text(max_size=12), st.one_of(st.text(), st.integers(), st.none(), st.binary(), st.floats())))
def test_only_fields_of_the_closed_list_pass(event: dict[str, Any]) -> None:
    kept = log.facts_only(None, "info", dict(event))
    assert set(kept) <= log.FIELDS
    assert all(value is None or isinstance(value, bool | int | float | str) for value in kept.values())
    assert all(len(value) <= 200 for value in kept.values() if isinstance(value, str))


@pytest.mark.parametrize("value", [[CANARY * 50], {"a": 1}, object(), b"x" * 1000])
def test_a_value_is_a_short_text(value: Any) -> None:
    assert len(str(log.facts_only(None, "info", {"where": value})["where"])) <= 200


def test_an_exception_is_its_type_and_place(lines: Any) -> None:
    error = caught()
    log.get().error("failed", exc=error)
    log.get().error("failed", exc_info=error)
    log.get().error("failed", exc_info=(type(error), error, error.__traceback__))
    try:
        fail()
    except ValueError:
        log.get().exception("failed")
    first, *others = lines()
    assert first["error"] == "ValueError"
    assert first["where"].startswith("test_log.py:")
    assert ":fail < test_log.py:" in first["where"]
    assert len(others) == 3


def test_causes_and_groups_do_not_tell_either(lines: Any) -> None:
    try:
        try:
            fail()
        except ValueError as error:
            raise RuntimeError(CANARY) from error
    except RuntimeError as error:
        log.get().error("failed", exc=ExceptionGroup(CANARY, [error]))
    [line] = lines()
    assert line["error"] == "ExceptionGroup"


def test_what_is_no_exception_is_dropped(lines: Any) -> None:
    log.get().error("failed", exc=CANARY)
    assert set(lines()[0]) == {"event", "level", "timestamp", "process"}


@pytest.mark.parametrize("name", ["pymongo.client", "uvicorn.error", "asyncio", "some.library"])
def test_a_librarys_line_is_reduced_to_logger_level_and_place(lines: Any, name: str) -> None:
    logging.getLogger(name).error("cannot send %s", CANARY, extra={"body": CANARY})
    logging.getLogger(name).critical("cannot send %s", CANARY, exc_info=caught())
    logging.getLogger(name).info(CANARY)
    first, second = lines()
    assert (first["event"], first["logger"], first["level"]) == ("library", name, "error")
    assert first["where"].startswith("test_log.py:")
    assert (second["level"], second["error"]) == ("critical", "ValueError")


def test_an_uncaught_exception_is_one_line(lines: Any, capsys: pytest.CaptureFixture[str]) -> None:
    error = caught()
    sys.excepthook(type(error), error, error.__traceback__)
    [line] = lines()
    assert (line["event"], line["error"]) == ("unhandled", "ValueError")
    assert CANARY not in "".join(capsys.readouterr())


def test_an_uncaught_exception_of_a_thread_is_one_line(lines: Any, capsys: pytest.CaptureFixture[str]) -> None:
    error = caught()
    threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, None)))
    assert lines()[0]["error"] == "ValueError"
    assert CANARY not in "".join(capsys.readouterr())


def test_an_exception_that_nobody_can_raise_is_one_line(lines: Any, capsys: pytest.CaptureFixture[str]) -> None:
    class Unraisable:
        exc_value = caught()
        exc_type = ValueError
        exc_traceback = None
        err_msg = CANARY
        object = CANARY

    sys.unraisablehook(Unraisable())  # type: ignore[arg-type]
    assert lines()[0]["error"] == "ValueError"
    assert CANARY not in "".join(capsys.readouterr())


def test_a_warning_is_a_librarys_line(lines: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn(CANARY, stacklevel=1)
    assert lines()[0]["logger"] == "py.warnings"
    assert CANARY not in "".join(capsys.readouterr())


def test_setup_sends_warnings_there(lines: Any) -> None:
    assert warnings.showwarning.__module__ == "logging"


async def test_a_task_that_nobody_waited_for(lines: Any, capsys: pytest.CaptureFixture[str]) -> None:
    context = {"message": CANARY, "exception": caught(), "body": CANARY}
    asyncio.get_running_loop().call_exception_handler(context)
    assert lines()[0]["error"] == "ValueError"
    assert CANARY not in "".join(capsys.readouterr())


def test_who_dies_of_a_signal_says_where_and_nothing_else() -> None:
    """Standard error was empty, and nobody knew why a process had ended."""
    code = f"""
import os, signal
from ledger import log
log.setup("test")
def serving(prompt):
    os.kill(os.getpid(), signal.SIGSEGV)
serving("{CANARY}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "in serving" in done.stderr
    assert CANARY not in done.stderr
