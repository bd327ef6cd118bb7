"""`Idempotency-Key`: a create that is sent again makes nothing new and answers with what the first one made.

The record of a key is written first in the transaction that makes the object, so both are there or neither is, and two
requests with one key meet at the record: the later one is told that the first is in flight. Records are kept for good.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from fastapi import Header
from pydantic import BaseModel, SecretStr
from pymongo.errors import DuplicateKeyError, OperationFailure

from admin_api.problems import Problem
from admin_api.stores import Session, in_transaction
from ledger.cold import ColdBook, now

_WRITE_CONFLICT = 112

Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,200}$")]


@dataclass(frozen=True, slots=True)
class Claim:
    """One use of a key: `id` is the scope (what is made, and where) and the key; `digest` is the body's."""

    id: str
    digest: str


def claim(scope: str, key: str | None, body: BaseModel) -> Claim | None:
    """The claim of this request, or None without a key. Equal bodies have equal digests however they were written."""
    if key is None:
        return None
    text = msgspec.json.encode(body.model_dump(), enc_hook=_plain, order="deterministic")
    return Claim(f"{scope}:{key}", hashlib.sha256(text).hexdigest())


async def once(
    cold: ColdBook, claim: Claim | None, object_id: str, make: Callable[[Session], Awaitable[object]]
) -> tuple[str, bool]:
    """(the object's id, whether it was made now): `make` runs in a transaction unless this claim has been made before.

    Problem 422 if the key was used with another body, 409 while the first request with it is still being done.
    """

    async def work(session: Session) -> None:
        if claim is not None:
            record = {"_id": claim.id, "digest": claim.digest, "object": object_id, "created_at": now()}
            await _write_claim(cold, record, session)
        await make(session)

    try:
        await in_transaction(cold, work)
    except _Taken:
        assert claim is not None
        return await _first(cold, claim), False
    return object_id, True


class _Taken(Exception):
    """The claim is another request's, which has ended or is under way."""


async def _write_claim(cold: ColdBook, record: dict[str, Any], session: Session) -> None:
    try:
        await cold.idempotency.insert_one(record, session=session)
    except DuplicateKeyError:
        raise _Taken from None
    except OperationFailure as error:
        if error.code == _WRITE_CONFLICT:
            raise _Taken from None
        raise


async def _first(cold: ColdBook, claim: Claim) -> str:
    found = await cold.idempotency.find_one({"_id": claim.id})
    if found is None:
        raise Problem(409, "in_flight", "a request with this Idempotency-Key is being done; ask again in a moment")
    if found["digest"] != claim.digest:
        raise Problem(422, "idempotency_key_reused", "this Idempotency-Key was used with another body")
    return str(found["object"])


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value)
