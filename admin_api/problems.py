"""Errors as RFC 9457 problems: `{type, title, status, detail, code}`, and `errors` where fields are at fault.

A problem names what is wrong and never repeats what was sent: an input may be a secret.
"""

import traceback
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pymongo.errors import ConnectionFailure, ExecutionTimeout, WTimeoutError
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError
from starlette.exceptions import HTTPException

from ledger import publish

log = structlog.get_logger("weir.admin")

# What says that Redis cannot take a change now. Other error replies are bugs of ours and must not look like weather.
REDIS_AWAY = (*publish.UNAVAILABLE, ReadOnlyError, OutOfMemoryError, ClusterDownError)
MONGO_AWAY = (ConnectionFailure, ExecutionTimeout, WTimeoutError)


class Problem(Exception):
    """A refusal: `status` and `code` for programs, `detail` for people; `extra` members travel beside them."""

    def __init__(self, status: int, code: str, detail: str, **extra: Any) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.extra = extra

    def response(self) -> JSONResponse:
        headers = {"retry-after": "1"} if self.status == HTTPStatus.SERVICE_UNAVAILABLE else None
        return problem_response(self.status, self.code, self.detail, headers=headers, **self.extra)


def not_found(what: str) -> Problem:
    return Problem(404, "not_found", f"there is no such {what}")


def invalid(field: str, message: str) -> Problem:
    """A 422 about one field of the body that only the stores, and not its form, could tell is wrong."""
    return Problem(422, "invalid_request", f"{field}: {message}", errors=[{"field": field, "message": message}])


def pending(identity: str, more: str = "") -> Problem:
    """A change that is written and that Redis could not take yet; the ledger worker puts it in force."""
    detail = f"written; will be in force as soon as Redis is back{more}"
    return Problem(503, "pending", detail, id=identity)


def problem_response(
    status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **extra: Any
) -> JSONResponse:
    content = {
        "type": f"urn:weir:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **extra,
    }
    return JSONResponse(content, status, headers=headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(Problem, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http)
    for redis_kind in REDIS_AWAY:
        app.add_exception_handler(redis_kind, _redis_away)
    for mongo_kind in MONGO_AWAY:
        app.add_exception_handler(mongo_kind, _mongo_away)


def internal(error: Exception) -> JSONResponse:
    """A bug of ours. Its place is logged and its message is not: a driver's message can quote what was written."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    log.error("internal error", error=type(error).__name__, at=[f"{f.filename}:{f.lineno}" for f in frames])
    return problem_response(500, "internal_error", "something went wrong here; the log says where")


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return error.response()


async def _not_valid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [{"field": _path(e["loc"]), "message": _message(e)} for e in error.errors()]
    detail = "; ".join(f"{e['field']}: {e['message']}" for e in errors[:3])
    if error.errors()[0]["type"] == "json_invalid":
        return problem_response(400, "invalid_json", "the body is not JSON")
    return problem_response(422, "invalid_request", detail, errors=errors)


def _path(loc: Sequence[int | str]) -> str:
    """`limits.concurrency` of ("body", "limits", "concurrency"); the body itself is `body`."""
    return ".".join(str(part)[:64] for part in loc[1:]) or str(loc[0])


def _message(error: dict[str, Any]) -> str:
    """Pydantic's message, which for the kinds below is ours, and for none of them repeats the input."""
    if error["type"] == "extra_forbidden":
        return "is not a field of this request"
    return str(error["msg"]).removeprefix("Value error, ")


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "refused")
    return problem_response(error.status_code, code, error.detail, headers=dict(error.headers or {}))


_CODES = {400: "invalid_json", 404: "unknown_path", 405: "method_not_allowed", 413: "request_too_large"}


async def _redis_away(_: Request, __: Exception) -> JSONResponse:
    return Problem(503, "temporarily_unavailable", "Redis does not answer, or is being reopened; try again").response()


async def _mongo_away(_: Request, __: Exception) -> JSONResponse:
    detail = "MongoDB does not answer; whether a change was written is not known, so repeat it with its Idempotency-Key"
    return Problem(503, "temporarily_unavailable", detail).response()
