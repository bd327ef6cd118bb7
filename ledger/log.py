"""Logs that cannot hold content: one JSON line an event, with named fields of a closed list and nothing else.

A field that is not in `FIELDS` is dropped, and so are exception messages, arguments and locals: of an exception only its
type and where it came from is written. Lines of libraries are reduced to logger, level and place in the code.
"""

import faulthandler
import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

FIELDS = frozenset(
    (
        "event", "level", "timestamp", "process", "pid", "rid", "account", "api_key", "partition", "upstream", "provider",
        "model", "dialect", "endpoint", "code", "outcome", "status", "error", "where", "logger", "count", "seconds",
        "epoch", "seq", "config", "term", "version", "address", "attempts", "signal", "child", "step",
    )
)  # fmt: skip
_LONGEST = 200


def setup(process: str, *, stream: Any = None) -> None:
    """Send this process's own and its libraries' lines to `stream` (standard error), as JSON."""
    out = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            lambda _logger, _method, event: {**event, "process": process},
            facts_only,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = _Places()
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.captureWarnings(True)
    if stream is None:  # who dies of a signal says where: names of functions and lines, and nothing that they hold
        faulthandler.enable()
    sys.excepthook = _unhandled
    sys.unraisablehook = lambda unraisable: _unhandled(None, unraisable.exc_value, None)
    threading.excepthook = lambda thread: _unhandled(None, thread.exc_value, None)


def get() -> Any:
    """The logger: `log.info("key_revoked", account=...)`."""
    return structlog.get_logger()


def facts_only(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep the fields that cannot hold content; turn an exception into its type and place."""
    error = event.pop("exc", None)
    if isinstance(error, BaseException):
        event["error"], event["where"] = type(error).__name__, where(error)
    return {name: _plain(value) for name, value in event.items() if name in FIELDS}


def where(error: BaseException) -> str:
    """The innermost frames of an exception, as file:line:function; no source lines, no values."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}:{frame.name}" for frame in reversed(frames))


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float) else str(value)[:_LONGEST]


def _unhandled(_kind: Any, error: BaseException | None, _trace: Any) -> None:
    get().error("unhandled", exc=error)


class _Places(logging.Handler):
    """What libraries say, without what they say it about."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        place = f"{record.filename}:{record.lineno}"
        level = min(max(record.levelno // 10 * 10, logging.WARNING), logging.CRITICAL)
        get().log(level, "library", logger=record.name, where=place, **({"exc": error} if error else {}))
