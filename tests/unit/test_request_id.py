"""Request ids are UUIDs of version 7 (RFC 9562)."""

import time
import uuid

from ledger import request_id


def test_a_version_7_uuid_of_now() -> None:
    earliest = time.time_ns() // 1_000_000
    rid = request_id.new()
    latest = time.time_ns() // 1_000_000
    parsed = uuid.UUID(hex=rid)
    assert (parsed.version, parsed.variant, parsed.hex) == (7, uuid.RFC_4122, rid)
    assert earliest <= request_id.began_ms(rid) <= latest


def test_unique_and_in_the_order_of_time() -> None:
    ids = [request_id.new() for _ in range(5000)]
    assert len(set(ids)) == len(ids)
    assert [rid[:12] for rid in ids] == sorted(rid[:12] for rid in ids)


def test_every_random_bit_varies() -> None:
    seen_one, seen_zero = 0, 0
    for _ in range(500):
        number = int(request_id.new(), 16)
        seen_one, seen_zero = seen_one | number, seen_zero | ~number
    varies = seen_one & seen_zero & (2**80 - 1)
    assert varies == (2**80 - 1) & ~(0xF << 76) & ~(0x3 << 62)
