"""Usage events: what a charge was for is in the digest; what cannot be read says so and is never half read."""

import json
from datetime import datetime
from typing import Any

import bson
import msgspec
import pytest
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st

from ledger import events, facts
from ledger.facts import Facts
from ledger.money import MAX_NANOS
from tests import entries

FACTS = Facts(
    account="a1", api_key="k1", model="m", dialect="openai", endpoint="chat", price_version=3, streamed=True,
    admitted_us=1_700_000_000_000_000, outcome="complete", served_model="m-1", provider="openai", upstream="u1",
    status=200, usage={"input_uncached": 5, "output": 7}, quote_nanos=900, latency_ms=12, ttft_ms=3,
    bytes_in=10, bytes_out=20,
)  # fmt: skip


def entry(given: Facts = FACTS, **fields: Any) -> dict[bytes, bytes]:
    event = fields.pop("event", facts.encode(given))
    common = {"epoch": 2, "rid": "r1", "charge": 500, "hold": 1000, "spent": 1500, "at": 1_700_000_001_234_567}
    return entries.entry(event, **{**common, **fields})


def digest(given: Facts = FACTS, **fields: Any) -> str:
    return str(events.document("5a", entry(given, **fields))["digest"])


def test_a_document_has_what_the_entry_and_its_facts_say() -> None:
    document = events.document("5a", entry())
    assert document["_id"] == document["request_id"] == "r1"
    assert (document["seq"], document["epoch"], document["end"], document["partition"]) == (1, 2, "settled", "5a")
    assert (document["charge_nanos"], document["spent_after_nanos"], document["quote_nanos"]) == (500, 1500, 900)
    assert document["at"].replace(tzinfo=None) == datetime(2023, 11, 14, 22, 13, 21, 234000)  # noqa: DTZ001
    assert document["day"] == "2023-11-14"
    assert all(isinstance(value, Int64) for name, value in document.items() if name.endswith("_nanos"))
    assert {name: document[name] for name in ("account", "usage", "status", "ttft_ms")} == {
        "account": "a1", "usage": {"input_uncached": 5, "output": 7}, "status": 200, "ttft_ms": 3,
    }  # fmt: skip


def test_a_late_event_has_an_id_of_its_own() -> None:
    document = events.document("5a", entry(end="late"))
    assert (document["_id"], document["request_id"]) == ("r1:late", "r1")


def test_an_abandoned_events_quote_is_its_hold() -> None:
    assert events.document("5a", entry(end="abandoned"))["quote_nanos"] == 1000


def test_what_is_shown_has_no_internals() -> None:
    shown = events.public(events.document("5a", entry()))
    assert not {"_id", "digest", "day", "purge_at", "admitted_us"} & set(shown)
    assert shown["at"] == "2023-11-14T22:13:21.234Z"
    assert type(shown["charge_nanos"]) is int
    json.dumps(shown)


@pytest.mark.parametrize(
    "fields",
    [{"seq": 99}, {"epoch": 99}, {"end": "orphan"}, {"at": 1}, {"hold": 5}, {"spent": 5}, {"rid": "r2"}],
)
def test_the_digest_ignores_what_differs_when_a_lost_event_is_posted_again(fields: dict[str, Any]) -> None:
    assert digest(**fields) == digest()


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "client_left"}, {"latency_ms": 99}, {"ttft_ms": None}, {"status": None}, {"upstream": "u2"},
        {"bytes_in": 0}, {"bytes_out": 0}, {"admitted_us": 1}, {"quote_nanos": 1}, {"streamed": False},
    ],
)  # fmt: skip
def test_the_digest_ignores_what_was_not_charged_for(change: dict[str, Any]) -> None:
    assert digest(msgspec.structs.replace(FACTS, **change)) == digest()


@pytest.mark.parametrize(
    "change",
    [
        {"account": "a2"}, {"api_key": "k2"}, {"model": "n"}, {"served_model": "n"}, {"served_model": None},
        {"provider": "xai"}, {"dialect": "anthropic"}, {"endpoint": "responses"}, {"price_version": 4}, {"estimated": True},
        {"usage": {"input_uncached": 5, "output": 8}}, {"usage": {"input_uncached": 5}}, {"usage": {}},
    ],
)  # fmt: skip
def test_the_digest_sees_each_thing_that_was_charged_for(change: dict[str, Any]) -> None:
    assert digest(msgspec.structs.replace(FACTS, **change)) != digest()


@pytest.mark.parametrize("fields", [{"charge": 501}, {"short": 1}])
def test_the_digest_sees_the_money(fields: dict[str, Any]) -> None:
    assert digest(**fields) != digest()


def test_the_digest_does_not_depend_on_the_order_of_the_usage() -> None:
    turned = msgspec.structs.replace(FACTS, usage=dict(reversed(FACTS.usage.items())))
    assert digest(turned) == digest()


@given(st.dictionaries(st.sampled_from(["input_uncached", "output", "cache_read"]), st.integers(0, 2**63 - 1)))
def test_every_readable_event_can_be_kept(usage: dict[str, int | str]) -> None:
    document = events.document("5a", entry(msgspec.structs.replace(FACTS, usage=usage)))
    assert bson.decode(bson.encode(document))["usage"] == usage


@pytest.mark.parametrize("missing", entries.WORDS)
def test_an_entry_without_a_word_is_unreadable(missing: str) -> None:
    with pytest.raises(events.Unreadable):
        events.document("5a", entry(FACTS, **{missing: None}))


@pytest.mark.parametrize("missing", [b"posted", b"event"])
def test_an_entry_without_a_field_is_unreadable(missing: bytes) -> None:
    fields = entry()
    del fields[missing]
    with pytest.raises(events.Unreadable):
        events.document("5a", fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"event": b""}, {"event": b"{}"}, {"event": b"\xff"}, {"event": b"[]"}, {"event": b"null"}, {"rid": b"\xff"},
        {"end": "paid"}, {"end": b"\xff"}, {"charge": "x"}, {"charge": "-1"}, {"charge": MAX_NANOS + 1}, {"short": -1},
        {"charge": "1.5"}, {"charge": "nan"}, {"seq": ""}, {"seq": 2**63}, {"epoch": 2**70}, {"spent": 2**63},
        {"at": "x"}, {"free": "x"}, {"at": 10**30}, {"at": -(10**30)}, {"at": 10**17 * 9}, {"end": "abandoned", "hold": "x"},
        {"end": "abandoned", "hold": 2**64},
        {"event": facts.encode(FACTS).replace(b"200", b"9" * 30)},
        {"event": facts.encode(FACTS).replace(b'"output":7', b'"output":' + b"9" * 30)},
        {"event": facts.encode(FACTS).replace(b'"output"', b'"out\\u0000put"')},
        {"event": facts.encode(FACTS).replace(b'"m-1"', b'"\\ud800"')},
        {"event": facts.encode(FACTS).replace(b'"price_version":3', b'"price_version":"3"')},
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_unreadable(fields: dict[str, Any]) -> None:
    """Whatever is not Unreadable here would end the worker, again and again: it is read first after each start."""
    with pytest.raises(events.Unreadable):
        events.encoded(events.document("5a", entry(**fields)))


@given(st.dictionaries(st.sampled_from([*entries.WORDS, "event"]), st.binary(max_size=30)))
def test_any_bytes_are_an_event_or_unreadable(fields: dict[str, Any]) -> None:
    try:
        bson.encode(events.encoded(events.document("5a", entry(**fields))))
    except events.Unreadable as error:
        assert "canary" not in str(error)  # noqa: PT017
