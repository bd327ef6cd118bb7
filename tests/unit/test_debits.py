"""Debits: an entry that is one becomes a document, and what cannot be kept is unreadable and never half read."""

from typing import Any

import bson
import msgspec
import pytest

from ledger import debits
from ledger.debits import DebitFacts
from ledger.events import Unreadable
from ledger.money import MAX_NANOS
from tests.entries import entry

FACTS = msgspec.json.encode(DebitFacts("a1", "refund", 1_700_000_000_000_000))


def made(event: bytes = FACTS, **words: Any) -> dict[str, Any]:
    common = {"end": "debit", "rid": "d1", "charge": 500, "spent": 700, "seq": 3, "at": 1_700_000_001_234_567}
    return debits.document("5a", entry(event, **{**common, **words}))


def test_a_document_has_what_the_entry_and_its_facts_say() -> None:
    document = made()
    assert (document["_id"], document["account"], document["kind"]) == ("d1", "a1", "refund")
    assert (document["charge_nanos"], document["spent_after_nanos"], document["seq"]) == (500, 700, 3)
    assert (document["epoch"], document["day"], document["partition"]) == (1, "2023-11-14", "5a")
    assert bson.encode(document)


@pytest.mark.parametrize(
    "words",
    [
        {"charge": 0}, {"charge": -1}, {"charge": MAX_NANOS + 1}, {"charge": "x"}, {"spent": -1}, {"spent": 2**63},
        {"at": 10**30}, {"rid": b"\xff"}, {"seq": None}, {"event": b""}, {"event": b"{}"}, {"event": b"\xff"},
        {"event": msgspec.json.encode(DebitFacts("a1", "refund", 2**63))},
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_unreadable(words: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        made(**words)
