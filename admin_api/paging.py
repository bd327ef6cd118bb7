"""Pages: `limit` and an opaque `cursor` in, `{items, next_cursor}` out. A cursor says where the last page ended."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Query

from admin_api.problems import invalid
from ledger.cold import Document

MOST = 500

Limit = Annotated[int, Query(ge=1, le=MOST)]
Cursor = Annotated[str | None, Query(max_length=500)]
DEFAULT_LIMIT = 50


def after(cursor: str | None, *types: type) -> tuple[Any, ...] | None:
    """Where to go on, as values of these types; None at the beginning; 422 for a cursor that is not ours."""
    if cursor is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=tuple[types])  # type: ignore[valid-type]
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise invalid("cursor", "is not one that a page of this list gave") from None


def page(
    found: Sequence[Document], limit: int, show: Callable[[Document], Any], place: Callable[[Document], tuple[Any, ...]]
) -> dict[str, Any]:
    """A page of at most `limit` of what was found; find one more than that, to know whether there is a next page."""
    shown = found[:limit]
    following = place(shown[-1]) if len(found) > limit else None
    cursor = None if following is None else base64.urlsafe_b64encode(msgspec.json.encode(following)).decode()
    return {"items": [show(document) for document in shown], "next_cursor": cursor}
