"""Every Redis key that Weir uses (design.md section 5). `w1` is the number of the schema, not of the release.

All keys of one account carry the same hash tag `{pXX}`, so a script touches one slot and a cluster needs no lookup.
"""

SCHEMA = "w1"
PARTITIONS = tuple(f"{n:02x}" for n in range(256))


def _key(partition: str, name: str) -> str:
    return f"{SCHEMA}:{{p{partition}}}:{name}"


def meta(partition: str) -> str:
    """Hash: server, state, epoch, seq, config, floor, instance, term."""
    return _key(partition, "meta")


def api_key(partition: str, key_id: str) -> str:
    """Hash: digest, pepper, account, line, version, status, expires_us, policy, its limits, and its gate."""
    return _key(partition, f"key:{key_id}")


def line(partition: str, line_id: str) -> str:
    """Record: a key lineage's counters, which rotation does not reset: live, rate states, spend-cap periods (`lines`)."""
    return _key(partition, f"line:{line_id}")


def account(partition: str, account_id: str) -> str:
    """Hash: credited, spent, grant, version, status, policy, limits, gate; in a record (`balances`) available and in use."""
    return _key(partition, f"acct:{account_id}")


def hold(partition: str, rid: str) -> str:
    """Text: a request's state H, S or X, and what is needed to end it (`holds`); of a debit, how it ended."""
    return _key(partition, f"hold:{rid}")


def due(partition: str) -> str:
    """Sorted set: request id -> the microsecond at which its lease ends."""
    return _key(partition, "due")


def usage(partition: str) -> str:
    """Stream of usage events; an entry is deleted only once MongoDB has it, never trimmed by length."""
    return _key(partition, "usage")


def claims(partition: str) -> str:
    """Stream of settlements that came too late for Redis to be sure; the ledger checks MongoDB before it posts one."""
    return _key(partition, "claims")


def config(version: int) -> str:
    """String: the immutable catalogue of that version."""
    return f"{SCHEMA}:config:{version}"
